//! What a guest's init can do with what it is told of a service.

use super::{Error, ServiceSpec};
use std::path::Path;

/// The longest host name that Linux takes, in bytes (`__NEW_UTS_LEN` in include/uapi/linux/utsname.h).
const HOST_NAME_BYTES: usize = 64;
/// The longest part between the dots of a name (RFC 1035 §2.3.4).
const LABEL_BYTES: usize = 63;

/// Checks a service as it was asked for.
pub(super) fn check(service: &ServiceSpec) -> Result<(), Error> {
    let [what_command, what_workdir] = ["the command", "the working directory"];
    if service.command.first().is_some_and(String::is_empty) {
        return Err(Error::CommandEmpty);
    }
    let words = service.command.iter().map(|word| (what_command, word));
    let directory = service.workdir.iter().map(|path| (what_workdir, path));
    for (what, text) in words.chain(directory) {
        check_nul(what, text)?;
    }
    for (name, value) in &service.env {
        if name.is_empty() || name.contains('=') || name.contains(char::is_control) {
            return Err(Error::EnvName { name: name.clone() });
        }
        check_nul(&format!("the environment variable `{name}`"), value)?;
    }
    match &service.workdir {
        Some(path) if !Path::new(path).is_absolute() => {
            Err(Error::WorkdirRelative { path: path.clone() })
        }
        _ => Ok(()),
    }
}

/// A NUL byte ends whatever the kernel is given.
fn check_nul(what: &str, text: &str) -> Result<(), Error> {
    match text.contains('\0') {
        true => Err(Error::NulByte { what: what.into() }),
        false => Ok(()),
    }
}

/// A kernel command line is one NUL-terminated line; anything else would be cut or misread silently. A quote that
/// stays open would take in what is added behind it.
pub(super) fn check_cmdline(text: &str) -> Result<(), Error> {
    let what = match text.chars().find(|c| c.is_control()) {
        None if text.matches('"').count().is_multiple_of(2) => return Ok(()),
        None => "double quote that nothing closes",
        Some('\0') => "NUL byte",
        Some('\n' | '\r') => "line break",
        Some(_) => "control character",
    };
    Err(Error::CmdlineCharacter { what })
}

/// Checks the path of a file on the host.
pub(super) fn check_path(what: &'static str, path: &Path) -> Result<(), Error> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(Error::PathEmpty { what });
    }
    match bytes.contains(&0) {
        true => Err(Error::NulByte {
            what: format!("the path of {what}"),
        }),
        false => Ok(()),
    }
}

/// Checks a host name: labels of letters, digits and hyphens with dots between (RFC 1123 §2.1).
pub(super) fn check_hostname(name: &str) -> Result<(), Error> {
    let wrong = |why| Error::Hostname {
        name: name.into(),
        why,
    };
    if name.len() > HOST_NAME_BYTES {
        return Err(wrong("Linux takes 64 bytes at most"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(wrong(
                "a name, or what is between two of its dots, is empty",
            ));
        }
        if label.len() > LABEL_BYTES {
            return Err(wrong("what is between two dots has 63 bytes at most"));
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(wrong("letters, digits, hyphens and dots make up a name"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(wrong("a hyphen is neither first nor last"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::VmConfig;

    #[test]
    fn host_names_are_those_of_the_standard() {
        let build = |name: &str| VmConfig::builder().kernel("k").hostname(name).build();
        for name in ["a", "web-1", "db.example.com", "0", &"x".repeat(63)] {
            assert!(build(name).is_ok(), "{name}");
        }
        for (name, why) in [
            ("", "is empty"),
            ("a b/c", "letters, digits"),
            ("a_b", "letters, digits"),
            ("a..b", "is empty"),
            ("a.", "is empty"),
            ("-a", "hyphen"),
            ("a-", "hyphen"),
            ("a\nb", "letters, digits"),
            ("\u{e9}", "letters, digits"),
            (&"x".repeat(64), "63 bytes"),
            (&"x".repeat(65), "64 bytes"),
            (&"x".repeat(300), "64 bytes"),
        ] {
            let error = build(name).unwrap_err().to_string();
            assert!(
                error.contains("host name") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn what_no_guest_can_be_told_is_refused() {
        for (json, expected) in [
            (r#""workdir": "srv""#, "`srv` is not an absolute path"),
            (r#""workdir": """#, "`` is not an absolute path"),
            (
                r#""workdir": "/a\u0000b""#,
                "the working directory has a NUL byte",
            ),
            (r#""command": ["", "a"]"#, "the command has an empty name"),
            (
                r#""command": ["a", "\u0000"]"#,
                "the command has a NUL byte",
            ),
            (
                r#""env": {"": "x"}"#,
                "is not the name of an environment variable",
            ),
            (r#""env": {"A=B": "x"}"#, "`A=B` is not the name"),
            (r#""env": {"A\nB": "x"}"#, "is not the name"),
            (r#""env": {"A": "\u0000"}"#, "variable `A` has a NUL byte"),
            (r#""kernel": """#, "the path of the kernel is empty"),
            (r#""initrd": """#, "the path of the initrd is empty"),
            (r#""root": """#, "the path of the root is empty"),
            (
                r#""root": "a", "scratch": """#,
                "the path of the scratch disk is empty",
            ),
            (r#""disks": [{"path": ""}]"#, "the path of a disk is empty"),
            (
                r#""kernel": "a\u0000b""#,
                "the path of the kernel has a NUL byte",
            ),
        ] {
            let kernel = match json.contains("kernel") {
                true => "",
                false => r#""kernel": "k", "#,
            };
            let json = format!("{{{kernel}{json}}}");
            let error = VmConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
