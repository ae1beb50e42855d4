//! The service of an instance, as its guest is told of it.

use super::Mount;
use kvmlet_control::agent::channel::ProcessSpec;
use kvmlet_spec::ConsoleSize;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a service runs, beside its command. It travels to the guest when that has started, and not on the kernel command
/// line, which has little room and is for everybody in the guest to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Environment variables, by their names.
    pub env: Vec<(Text, Text)>,
    /// Where it starts; where the image says if nothing is said.
    pub workdir: Option<String>,
    /// Whether that is made where it is missing: the image says so, and nobody has mistyped it.
    pub make_workdir: bool,
    /// Whom it runs as, `USER[:GROUP]` by names or numbers; whom the image says if nobody.
    pub user: Option<String>,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// Lines of the guest's `/etc/hosts`, beside its own: an address and its names.
    pub hosts: Vec<String>,
    /// The machine's name.
    pub hostname: Option<String>,
    /// The number of the signal that asks it to end; SIGTERM if none.
    pub stop_signal: Option<u8>,
    /// How long it may take then, in seconds; 10 if nothing is said.
    pub stop_timeout: Option<u32>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether whoever is attached to it gives it input.
    pub input: bool,
    /// What is mounted beside its root, in this order.
    pub mounts: Vec<Mount>,
}

/// Text that may be no UTF-8: a string then, and otherwise its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// UTF-8.
    Utf8(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Text {
    /// As it may be printed.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Utf8)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Utf8(text.into())
    }
}

impl Service {
    /// Without another time limit, it has this long to end, in seconds.
    pub const STOP_TIMEOUT_S: u32 = 10;

    /// How long it may take to end when it is asked to, in seconds.
    pub fn stop_timeout_s(&self) -> u32 {
        self.stop_timeout.unwrap_or(Self::STOP_TIMEOUT_S)
    }

    /// The number of the signal that asks it to end.
    pub fn stop_signal(&self) -> u8 {
        const SIGTERM: u8 = 15;
        self.stop_signal.unwrap_or(SIGTERM)
    }

    /// What the guest is told, with the size of its terminal, if it has one.
    pub fn describe(&self, command: &[Text], size: ConsoleSize) -> ProcessSpec {
        let arguments = command.iter().map(|word| word.as_bytes().to_vec());
        let mounts = self.mounts.iter().enumerate();
        ProcessSpec {
            hostname: self.hostname.clone(),
            hosts: self.hosts.clone(),
            mounts: mounts.map(|(index, mount)| mount.spec(index)).collect(),
            stop_signal: self.stop_signal,
            stop_timeout_ms: Some(self.stop_timeout_s().saturating_mul(1000)),
            terminal: self.terminal.then_some(size),
            input: self.input,
            ..self.beside(arguments.collect())
        }
    }

    /// One more process in its guest, by its arguments: with its variables, its user and its directory.
    pub fn beside(&self, arguments: Vec<Vec<u8>>) -> ProcessSpec {
        let bytes = |text: &Text| text.as_bytes().to_vec();
        let variables = self.env.iter();
        ProcessSpec {
            arguments,
            variables: variables
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
            workdir: self.workdir.clone().map(Into::into),
            make_workdir: self.make_workdir,
            user: self.user.clone(),
            groups: self.groups.clone(),
            ..ProcessSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_kept() {
        let service = Service {
            env: vec![
                (
                    b"A".to_vec().into(),
                    "caf\u{e9}\n".as_bytes().to_vec().into(),
                ),
                (b"B".to_vec().into(), vec![0xff, b'x'].into()),
            ],
            ..Service::default()
        };
        let text = serde_json::to_string(&service).unwrap();
        assert!(text.contains(r#"["A","café\n"],["B",[255,120]]"#), "{text}");
        assert_eq!(serde_json::from_str::<Service>(&text).unwrap(), service);
        let size = ConsoleSize {
            columns: 80,
            rows: 24,
        };
        let told = service.describe(&["sh".into(), b"\xff".to_vec().into()], size);
        assert_eq!(told.arguments, [&b"sh"[..], b"\xff"]);
        assert_eq!(told.variables[1], (b"B".to_vec(), vec![0xff, b'x']));
        assert_eq!((told.stop_timeout_ms, told.terminal), (Some(10_000), None));
        assert!(told.encode().is_ok());
    }
}
