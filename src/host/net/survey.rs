//! What this host gives for networks of kvmlet's own, looked at without making one.

use super::nft::{Kind, Socket};
use super::{Error, firewall};
use crate::host::facts;
use std::io;

/// What keeps guests' packets from being forwarded, as far as one can tell.
pub struct Obstacle {
    /// What it is.
    pub what: String,
    /// The command that lets guests' packets pass.
    pub help: String,
}

/// Can rules for guests' packets be made? It takes CAP_NET_ADMIN to ask.
///
/// # Errors
/// What the kernel says if not.
pub fn filters() -> io::Result<()> {
    Socket::open()?.list(Kind::GetTable, 0, &[], |_| ())
}

/// A firewall of this host that forwards nothing by itself; none if none is seen.
pub fn obstacle() -> Option<Obstacle> {
    let firewall = firewall::in_the_way(&mut Socket::open().ok()?)?;
    Some(Obstacle {
        what: format!("the firewall's table {firewall} forwards nothing by default"),
        help: format!("for each VM: {}", firewall.remedy("kvmlet0")),
    })
}

/// An error about one right that is missing becomes one about all that are, so that they need not be found out one by
/// one.
pub(super) fn with_all_that_is_missing(error: Error) -> Error {
    let of_rights = match &error {
        Error::Tun { .. } | Error::Capability { .. } | Error::Rules { .. } => true,
        Error::Link { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    };
    if !of_rights {
        return error;
    }
    let mut missing = Vec::new();
    if let Err(source) = facts::open_tun() {
        missing.push(Error::Tun { source });
    }
    if !facts::has_capability(facts::CAP_NET_ADMIN) {
        let to = "make a network interface, and rules for its packets";
        missing.push(Error::Capability { to });
    } else if let Err(source) = filters() {
        missing.push(Error::Rules { source });
    }
    match missing.len() {
        0 | 1 => error,
        _ => Error::Lacking { missing },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Network;
    use super::super::isolation::isolated;
    use crate::config::Net;
    use crate::host::runtime::RuntimeDirectory;

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        isolated(
            "host::net::survey::tests::all_that_is_missing_is_told_at_once",
            || {
                // A thread of nobody's, which has neither the capability nor a device that is root's.
                let refused = std::thread::spawn(move || {
                    // SAFETY: numbers; it holds for this thread.
                    unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
                    let directory = tempfile::tempdir().unwrap();
                    let runtime = RuntimeDirectory::at(directory.path()).unwrap();
                    Network::set_up(&Net::default(), Some(&runtime))
                        .err()
                        .unwrap()
                });
                let refused = refused.join().unwrap();
                let (error, help) = (refused.to_string(), refused.help().unwrap());
                assert!(error.contains("CAP_NET_ADMIN"), "{error}");
                assert!(help.contains("setcap cap_net_admin"), "{help}");
                if crate::host::facts::open_tun().is_ok()
                    && std::fs::metadata("/dev/net/tun").is_ok_and(|data| {
                        std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 6 == 6
                    })
                {
                    return; // anybody may open it here
                }
                assert!(error.contains("/dev/net/tun"), "{error}");
            },
        );
    }
}
