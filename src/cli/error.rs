//! Errors as a person reads them.

use crate::host::{standard_error, whole_file};
use std::error::Error as StdError;
use std::io;

/// An error with the way out, if there is one.
#[derive(Debug)]
pub(super) struct Failed {
    error: Box<dyn StdError>,
    help: Option<String>,
}

impl Failed {
    pub fn new(error: impl Into<Box<dyn StdError>>) -> Self {
        Self {
            error: error.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Prints the chain of causes, and the way out, to standard error.
    pub fn print(&self) {
        standard_error::tell(self.text().as_bytes());
    }

    /// What went wrong, without why.
    pub fn first_line(&self) -> String {
        self.error.to_string()
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", system_message(&*self.error));
        let mut root = &*self.error;
        while let Some(error) = root.source() {
            text += &format!("  caused by: {}\n", system_message(error));
            root = error;
        }
        if let Some(help) = used_up(root).or(self.help.as_deref()) {
            text += &format!("  help: {help}\n");
        }
        text
    }
}

/// What helps when this process, or the host, may have no more of something that everything takes: whatever it was
/// wanted for, nothing else does.
fn used_up(root: &(dyn StdError + 'static)) -> Option<&'static str> {
    match root.downcast_ref::<io::Error>()?.raw_os_error()? {
        libc::EMFILE => {
            Some("let kvmlet have more files open: `ulimit -n`, or LimitNOFILE= of a service")
        }
        libc::ENFILE => Some("let this host have more files open: fs.file-max (sysctl)"),
        _ => None,
    }
}

/// An operating system's message without Rust's "(os error N)".
fn system_message(error: &(dyn StdError + 'static)) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

impl From<whole_file::Error> for Failed {
    fn from(error: whole_file::Error) -> Self {
        let help = error.help();
        let failed = Self::new(error);
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}

impl From<crate::Error> for Failed {
    fn from(error: crate::Error) -> Self {
        let help = error.help();
        Self {
            error: error.into(),
            help,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_that_wherever_it_shows() {
        let error = crate::Error::Open {
            what: "guest kernel",
            path: "vmlinux".into(),
            source: io::Error::from_raw_os_error(libc::EMFILE),
        };
        for (failed, first) in [
            (
                Failed::from(error),
                "cannot open guest kernel `vmlinux`\n  caused by: too many",
            ),
            (
                Failed::new(io::Error::from_raw_os_error(libc::EMFILE)),
                "too many",
            ),
        ] {
            let text = failed.text();
            assert!(
                text.starts_with(&format!("error: {first} open files\n  help: ")),
                "{text}"
            );
            assert!(text.contains("`ulimit -n`"), "{text}");
        }
    }

    #[test]
    fn the_whole_chain_is_one_block() {
        let error = crate::Error::Open {
            what: "guest kernel",
            path: "nowhere".into(),
            source: io::Error::from_raw_os_error(2),
        };
        assert_eq!(
            Failed::from(error).text(),
            "error: cannot open guest kernel `nowhere`\n  \
               caused by: no such file or directory\n  \
               help: build one with `kernels/build`, or pass --kernel\n"
        );
    }
}
