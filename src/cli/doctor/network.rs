//! What a network of a VM's own takes.

use super::{Finding, ok, warning};
use kvmlet_host::net::passt;
use kvmlet_host::net::survey::{self, Forwarding};
use kvmlet_spec::NetBackend;
use kvmlet_sys::facts;

/// Whether taps can be made.
pub fn tap() -> Finding {
    match facts::open_tun() {
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => warning(
            "tap",
            format!("/dev/net/tun cannot be opened: {cause}"),
            "ask for access to the device: `sudo chmod 666 /dev/net/tun`",
        ),
        Err(cause) => warning(
            "tap",
            format!("/dev/net/tun cannot be opened: {cause}"),
            "load the module: `sudo modprobe tun`",
        ),
        Ok(()) if facts::has_capability(facts::CAP_NET_ADMIN) => ok("tap", "taps can be made"),
        Ok(()) => warning(
            "tap",
            "this user may use taps that exist, and make none (no CAP_NET_ADMIN)",
            "let root make one for you: `ip tuntap add NAME mode tap user $USER`",
        ),
    }
}

/// What carries the interfaces of this user's guests.
pub fn backend() -> Finding {
    const NAME: &str = "interfaces";
    let passt = passt::find();
    match (survey::backend(), passt) {
        (NetBackend::Tap, _) => ok(NAME, "guests' interfaces are taps"),
        (_, Some(program)) if survey::has_default_route() => ok(
            NAME,
            format!("guests' interfaces are carried by {}", program.display()),
        ),
        (_, Some(program)) => warning(
            NAME,
            format!(
                "guests' interfaces would be carried by {}, and this host has no default route, which it takes",
                program.display()
            ),
            "add one: `sudo ip route add default via ADDRESS`",
        ),
        (_, None) => warning(
            NAME,
            "guests can have no interfaces of kvmlet's own: this user may make no taps, and there is no passt",
            passt::INSTALL,
        ),
    }
}

/// Whether guests' packets can be filtered and forwarded. Only who may make taps can tell.
pub fn packets() -> Vec<Finding> {
    if !facts::has_capability(facts::CAP_NET_ADMIN) {
        return Vec::new();
    }
    vec![filters(), connections(), forwarding(), firewall()]
}

fn filters() -> Finding {
    match survey::filters() {
        Ok(()) => ok("nf_tables", "guests' packets can be filtered"),
        Err(cause) => warning(
            "nf_tables",
            format!("guests' packets cannot be filtered, so there are no networks: {cause}"),
            "load the modules: `sudo modprobe -a nf_tables nft_fib_ipv4 nft_masq nft_nat nft_ct`; or use taps that \
             exist: --net tap=NAME",
        ),
    }
}

fn connections() -> Finding {
    match survey::connections() {
        Ok(()) => ok(
            "conntrack",
            "connections of guests that have ended are forgotten",
        ),
        Err(cause) => warning(
            "conntrack",
            format!(
                "connections of a guest that has ended are not forgotten when the next gets its address: {cause}"
            ),
            "load the module: `sudo modprobe nf_conntrack_netlink`",
        ),
    }
}

fn forwarding() -> Finding {
    match survey::forwarding() {
        Forwarding::OnDemand => ok("forwarding", "switched on where guests need it"),
        Forwarding::Always => ok("forwarding", "on for all interfaces"),
        Forwarding::Never(cause) => warning(
            "forwarding",
            format!(
                "guests reach nothing but this host: forwarding is off and cannot be switched on: {cause}"
            ),
            "in a container: have it started with `--sysctl net.ipv4.ip_forward=1`, or with a /proc/sys that can be \
             written",
        ),
    }
}

fn firewall() -> Finding {
    match survey::obstacle() {
        None => ok(
            "firewall",
            "none is seen that keeps guests' packets from being forwarded",
        ),
        Some(obstacle) => warning("firewall", obstacle.what, obstacle.help),
    }
}

/// Whom this host asks for names, and so for those that guests ask it for.
pub fn names() -> Finding {
    let servers = kvmlet_host::net::name_servers();
    let servers: Vec<String> = servers
        .iter()
        .map(|server| server.ip().to_string())
        .collect();
    match servers.is_empty() {
        false => ok(
            "names",
            format!("guests ask this host, and it asks {}", servers.join(", ")),
        ),
        true => warning(
            "names",
            "guests can look up no names: /etc/resolv.conf names no name server of this host",
            "name one there (`nameserver ADDRESS`), or for one VM: --dns ADDRESS",
        ),
    }
}
