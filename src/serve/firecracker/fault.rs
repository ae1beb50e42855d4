//! What is not done, and why, as Firecracker's clients read it.

use crate::http::Answer;
use kvmlet_spec::{Dialect, Failure, Remedy};

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl Fault {
    /// Something that would be taken before the VM has started.
    pub fn too_late() -> Self {
        Self("The requested operation is not supported after starting the microVM.".into())
    }

    /// Something that needs a VM.
    pub fn too_early() -> Self {
        Self("The requested operation is not supported before starting the microVM.".into())
    }

    /// What was asked of a VM that is gone.
    pub fn ended() -> Self {
        Self("The microVM has ended.".into())
    }

    /// Something that nobody can have here.
    pub fn unsupported(what: &str, why: &str) -> Self {
        Self(format!("{what} is not supported: {why}."))
    }

    /// What went wrong, with all that led to it and the way out.
    pub fn of(error: &(impl Remedy + 'static)) -> Self {
        let help = error.remedy().map(|help| help.in_words_of(Dialect::File));
        Self::of_failure(&Failure::of(error), help.as_deref())
    }

    /// What a VM says.
    pub fn of_failure(failure: &Failure, help: Option<&str>) -> Self {
        let mut text = failure.message.clone();
        let mut cause = failure.cause.as_deref();
        while let Some(failure) = cause {
            text = format!("{text}: {}", failure.message);
            cause = failure.cause.as_deref();
        }
        if let Some(help) = help.or(failure.help.as_deref()) {
            text = format!("{text} ({})", in_own_words(help));
        }
        Self(text)
    }

    /// The answer.
    pub fn answer(&self) -> Answer {
        Answer::new(400, Some(fault_message(&self.0)))
    }
}

/// What a way out names as a configuration file of kvmlet's has it, and how Firecracker's API has the same.
const WORDS: &[(&str, &str)] = &[
    (
        "`\"huge_pages\": \"transparent\"`",
        "`\"huge_pages\": \"Transparent\"`",
    ),
    ("`\"huge_pages\": \"reserved\"`", "`\"huge_pages\": \"2M\"`"),
    ("`\"huge_pages\": \"off\"`", "`\"huge_pages\": \"None\"`"),
    ("`memory`", "`mem_size_mib`"),
    ("`vcpus`", "`vcpu_count`"),
    ("`kernel`", "`kernel_image_path`"),
    ("`initrd`", "`initrd_path`"),
];

/// The same way out, with the names of Firecracker's API.
fn in_own_words(help: &str) -> String {
    let replaced = |text: String, (theirs, own): &(&str, &str)| text.replace(theirs, own);
    WORDS.iter().fold(help.to_owned(), replaced)
}

/// As clients read it.
pub fn fault_message(text: &str) -> String {
    serde_json::json!({ "fault_message": text }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_spec::{Setting, advice};

    #[test]
    fn ways_out_name_what_the_api_has() {
        let of = |help: kvmlet_spec::Advice| {
            let mut failure = Failure::default();
            failure.message = "no".into();
            failure.help = Some(help.to_string());
            Fault::of_failure(&failure, None).0
        };
        assert_eq!(
            of(advice!("take {}", (Setting::HugePages, "transparent"))),
            r#"no (take `"huge_pages": "Transparent"`)"#
        );
        assert_eq!(
            of(advice!("ask for less {}", Setting::Memory)),
            "no (ask for less `mem_size_mib`)"
        );
        assert_eq!(
            of(advice!("leave out {}", Setting::Initrd)),
            "no (leave out `initrd_path`)"
        );
    }
}
