//! What this host gives for networks of kvmlet's own, looked at without making one.

use super::nft::Socket;
use super::record::{DnsPorts, Record};
use super::table::Table;
use super::{Error, conntrack, firewall, link};
use crate::config::{Egress, NetBackend};
use kvmlet_sys::facts;
use std::io;

/// What keeps guests' packets from being forwarded, as far as one can tell.
pub struct Obstacle {
    /// What it is.
    pub what: String,
    /// The command that lets guests' packets pass.
    pub help: String,
}

/// What carries an interface for which nobody has said that: a tap, where this user may make one.
pub fn backend() -> NetBackend {
    match facts::has_capability(facts::CAP_NET_ADMIN) && facts::open_tun().is_ok() {
        true => NetBackend::Tap,
        false => NetBackend::Passt,
    }
}

/// Does a route lead to whatever no other route leads to?
pub fn has_default_route() -> bool {
    link::default_routes().is_ok_and(|routes| !routes.is_empty())
}

/// Can rules for guests' packets be made? All of them are, for a guest that is not there, in a change that is taken
/// back. It takes CAP_NET_ADMIN.
///
/// # Errors
/// What the kernel says of the first that it refuses.
pub fn filters() -> io::Result<()> {
    let guest = Record {
        pid: std::process::id(),
        namespace: 0,
        cookie: 0,
        tap: "kvmlet0".into(),
        index: 0,
        subnet: "10.107.0.0/30".into(),
        guest: [10, 107, 0, 2].into(),
        published: ["80:80", "192.0.2.1:80:80"].map(Into::into).into(),
        dns: Some(DnsPorts { udp: 1, tcp: 1 }),
        egress: Egress::Internet,
        cell: None,
    };
    let table = Table::named(&format!("rehearsal-{}", std::process::id()));
    Socket::open()?.rehearse(|batch| {
        table.create(batch);
        table.open(batch, &guest, true);
    })
}

/// Can connections of guests that have ended be told and forgotten? It takes CAP_NET_ADMIN.
///
/// # Errors
/// What the kernel says if not.
pub fn connections() -> io::Result<()> {
    conntrack::check(&mut Socket::open()?)
}

/// Whether packets come through between guests and other interfaces.
pub enum Forwarding {
    /// Where guests need it, it is switched on.
    OnDemand,
    /// It cannot be changed, but is on for all interfaces, and for those to come.
    Always,
    /// It is off, or not everywhere on, and cannot be changed.
    Never(io::Error),
}

/// Whether packets can be forwarded.
pub fn forwarding() -> Forwarding {
    match link::may_set_forwarding() {
        Ok(()) => Forwarding::OnDemand,
        Err(_) if ["all", "default"].into_iter().all(link::forwards) => Forwarding::Always,
        Err(error) => Forwarding::Never(error),
    }
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
    use super::super::nft::{Batch, Expression, IPV4, Meta, Register, Verdict};
    use super::super::rules::Chain;
    use super::super::tests::run;
    use super::*;
    use crate::config::Net;
    use crate::state::runtime::RuntimeDirectory;

    #[test]
    fn rules_are_rehearsed_and_nothing_stays() {
        isolated(
            "net::survey::tests::rules_are_rehearsed_and_nothing_stays",
            || {
                filters().unwrap();
                connections().unwrap();
                let list = |what: &str| run("nft", &["list", what]);
                assert_eq!(list("ruleset"), "");
                // A map where a set is meant: as a kernel says of a rule that it does not know.
                let mut socket = Socket::open().unwrap();
                let table = Table::named("rehearsal");
                let wrong = vec![
                    Expression::LoadMeta(Meta::Protocol, Register(0)),
                    Expression::In(Register(0), "nowhere"),
                    Expression::Decide(Verdict::Drop),
                ];
                let mut refused = |rehearsed| {
                    let fill = |batch: &mut Batch| {
                        table.create(batch);
                        table.append(batch, IPV4, Chain::Forward, &wrong);
                    };
                    let result = match rehearsed {
                        true => socket.rehearse(fill),
                        false => socket.change(fill),
                    };
                    result.unwrap_err()
                };
                let error = refused(true);
                let named = "the kernel refuses the rule `meta, lookup @nowhere, immediate` of the chain `forward`: ";
                assert!(error.to_string().starts_with(named), "{error}");
                let source = refused(false);
                let error = Error::Rules { source };
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(cause.starts_with(named), "{cause}");
                assert_eq!(list("ruleset"), "");
            },
        );
    }

    #[test]
    fn forwarding_that_cannot_be_switched_is_told() {
        isolated(
            "net::survey::tests::forwarding_that_cannot_be_switched_is_told",
            || {
                let read_only = || {
                    // SAFETY: it concerns this thread only, and strings that end with a zero.
                    unsafe {
                        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
                        let (none, root, kind) = (c"none".as_ptr(), c"/".as_ptr(), c"".as_ptr());
                        let private = libc::MS_REC | libc::MS_PRIVATE;
                        assert_eq!(libc::mount(none, root, kind, private, std::ptr::null()), 0);
                        let path = c"/proc/sys".as_ptr();
                        let bind = libc::MS_BIND;
                        assert_eq!(libc::mount(path, path, kind, bind, std::ptr::null()), 0);
                        let again = bind | libc::MS_REMOUNT | libc::MS_RDONLY;
                        assert_eq!(libc::mount(none, path, kind, again, std::ptr::null()), 0);
                    }
                    forwarding()
                };
                let in_container = || std::thread::spawn(read_only).join().unwrap();
                assert!(matches!(forwarding(), Forwarding::OnDemand));
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
                let refused = in_container();
                let Forwarding::Never(error) = refused else {
                    panic!("it is off");
                };
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
                assert!(matches!(in_container(), Forwarding::Always));
                // Then a guest's packets are forwarded there, too.
                let warnings = std::thread::spawn(move || {
                    read_only();
                    let directory = tempfile::tempdir().unwrap();
                    let runtime = RuntimeDirectory::at(directory.path()).unwrap();
                    let network = Network::set_up(&Net::default(), Some(&runtime)).unwrap();
                    network.warnings().join("\n")
                });
                let warnings = warnings.join().unwrap();
                assert!(!warnings.contains("forwarded"), "{warnings}");
            },
        );
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        isolated(
            "net::survey::tests::all_that_is_missing_is_told_at_once",
            || {
                // A thread of nobody's, which has neither the capability nor a device that is root's.
                let refused = std::thread::spawn(move || {
                    // SAFETY: numbers; it holds for this thread.
                    unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
                    let directory = tempfile::tempdir().unwrap();
                    let runtime = RuntimeDirectory::at(directory.path()).unwrap();
                    // With passt there is another way.
                    let tap = "tap".parse().unwrap();
                    Network::set_up(&tap, Some(&runtime)).err().unwrap()
                });
                let refused = refused.join().unwrap();
                let (error, help) = (refused.to_string(), refused.help().unwrap().to_string());
                assert!(error.contains("CAP_NET_ADMIN"), "{error}");
                assert!(help.contains("setcap cap_net_admin"), "{help}");
                if kvmlet_sys::facts::open_tun().is_ok()
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
