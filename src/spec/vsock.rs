//! Sockets between guest and host as a user asks for them.

use super::flag::Flag;
use super::{Error, Setting, service};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// What is wrong with sockets between guest and host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// A guest's address that none can have.
    #[error(
        "`{cid}` is not the address of a guest: a number from {} to {}",
        Cid::MIN,
        Cid::MAX
    )]
    Cid {
        /// What the user wrote.
        cid: String,
    },
    /// Sockets without a place.
    #[error("sockets between guest and host need a path at which the host has its own")]
    PathMissing,
    /// A path that does not fit the address of a socket.
    #[error(
        "the path of sockets between guest and host, `{}`, has {bytes} bytes, and {} is the most (with `_` and a port it \
         has to fit the address of a socket): choose a shorter one, or one from the working directory",
        .path.display(), Vsock::LONGEST_PATH
    )]
    PathLength {
        /// What the user wrote.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A path that ends without a name.
    #[error("`{}` names a directory, and sockets between guest and host need a name in one", .path.display())]
    PathName {
        /// What the user wrote.
        path: PathBuf,
    },
}

/// The guest's address among VMs and their host: 3 to [`Cid::MAX`] (virtio 1.2 §5.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Cid(u32);

impl Cid {
    /// The first that is no hypervisor's, no VM's own and no host's (vsock(7)). Each VM has a host side of its own, so all
    /// may have the same.
    pub const MIN: u32 = 3;
    /// The last one is that of no VM: VMADDR_CID_ANY.
    pub const MAX: u32 = u32::MAX - 1;

    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Cid {
    fn default() -> Self {
        Self(Self::MIN)
    }
}

impl TryFrom<u64> for Cid {
    type Error = Error;

    fn try_from(cid: u64) -> Result<Self, Error> {
        match u32::try_from(cid) {
            Ok(number @ Self::MIN..=Self::MAX) => Ok(Self(number)),
            _ => Err(VsockError::Cid {
                cid: cid.to_string(),
            }
            .into()),
        }
    }
}

/// Sockets between guest and host, in the manner of Firecracker.
///
/// A program of the host that connects to the socket at `path` and writes `CONNECT PORT` is connected to what listens on
/// that port in the guest; a guest that connects to a port of its host is connected to what listens at `path_PORT`.
///
/// As text: keys and values with commas between, `path=/run/a.sock,cid=7`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Vsock {
    /// Where the socket is made.
    pub path: PathBuf,
    /// The guest's address.
    #[serde(default)]
    pub cid: Cid,
    /// Whether the guest's init asks what listens at `path_1023` which service it is to run, and hands its streams over
    /// there.
    #[serde(default)]
    pub agent: bool,
}

impl Vsock {
    /// The most that `path` can have, in bytes: the address of a socket takes 107 (unix(7)), and behind the path may come
    /// `_` and a port of ten digits.
    pub const LONGEST_PATH: usize = 107 - 11;

    /// Sockets at a path, for a guest with the address that is usual.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cid: Cid::default(),
            agent: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        service::check_path("the sockets between guest and host", &self.path)?;
        let bytes = self.path.as_os_str().len();
        if bytes > Self::LONGEST_PATH {
            let path = self.path.clone();
            return Err(VsockError::PathLength { path, bytes }.into());
        }
        // A name, and no directory.
        match self.path.to_string_lossy().ends_with('/') || self.path.file_name().is_none() {
            true => Err(VsockError::PathName {
                path: self.path.clone(),
            }
            .into()),
            false => Ok(()),
        }
    }
}

impl FromStr for Vsock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let flag = Flag::parse(Setting::Vsock, "a socket device", "path", text)?;
        let path = flag.text("path", "a path")?;
        let cid = match flag.text("cid", "an address")? {
            None => Cid::default(),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => number.try_into()?,
                Err(_) => {
                    let cid = text.into();
                    return Err(VsockError::Cid { cid }.into());
                }
            },
        };
        Ok(Self {
            path: path.ok_or(VsockError::PathMissing)?.into(),
            cid,
            agent: flag.switch("agent")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VmConfig;

    fn vsock(text: &str) -> Result<Vsock, String> {
        text.parse().map_err(|error: Error| error.to_string())
    }

    #[test]
    fn text_and_json_say_the_same() {
        let json = |text| serde_json::from_str::<Vsock>(text).unwrap();
        for text in ["a.sock", "path=a.sock", "path=a.sock,cid=3"] {
            assert_eq!(vsock(text).unwrap(), Vsock::new("a.sock"), "{text}");
        }
        assert_eq!(json(r#"{"path": "a.sock"}"#), Vsock::new("a.sock"));
        let text = vsock("cid=4294967294,path=/run/a.sock").unwrap();
        assert_eq!(text, json(r#"{"path": "/run/a.sock", "cid": 4294967294}"#));
        assert_eq!(text.cid.get(), u32::MAX - 1);
        let text = vsock("a.sock,agent").unwrap();
        assert_eq!(text, json(r#"{"path": "a.sock", "agent": true}"#));
        let guest = VmConfig::builder().kernel("k").vsock(text).build();
        assert_eq!(guest.unwrap().guest.to_cmdline(), "kvmlet.agent=vsock");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            (
                "a,sid=3",
                "a socket device has no key `sid`; did you mean `cid`?",
            ),
            ("cid=3", "sockets between guest and host need a path"),
            ("", "`path` of a socket device needs a value: a path"),
            ("a,cid=2", "`2` is not the address of a guest"),
            ("a,cid=4294967295", "`4294967295` is not the address"),
            ("a,cid=four", "`four` is not the address of a guest"),
            ("a,cid=-1", "`-1` is not the address of a guest"),
            ("a,path=b", "a socket device has `path` twice"),
        ] {
            let error = vsock(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for json in [
            r#"{"cid": 3}"#,
            r#"{"path": "a", "cid": 2}"#,
            r#"{"path": "a", "x": 2}"#,
        ] {
            assert!(serde_json::from_str::<Vsock>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_path_fits_the_address_of_a_socket() {
        let build = |path: &str| {
            let config = VmConfig::builder().kernel("k").vsock(Vsock::new(path));
            config.build().map(drop).map_err(|error| error.to_string())
        };
        let longest = "x".repeat(Vsock::LONGEST_PATH);
        assert_eq!(build(&longest), Ok(()));
        let error = build(&format!("{longest}y")).unwrap_err();
        assert!(
            error.contains("has 97 bytes, and 96 is the most"),
            "{error}"
        );
        for path in ["/", "a/..", "a/", ".."] {
            assert!(
                build(path).unwrap_err().contains("names a directory"),
                "{path}"
            );
        }
        assert!(build("").unwrap_err().contains("is empty"));
        assert!(build("a\0b").unwrap_err().contains("NUL"));
    }
}
