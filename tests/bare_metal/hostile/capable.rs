//! `setcap cap_net_admin+ep`: an ordinary user with networks.

use super::{ATTACKER, Scene};
use crate::harness::patience::eventually;

/// What there is of a VM's network, each as a condition.
const THERE: [&str; 5] = [
    "ip -4 -o addr show dev kvmlet0 | grep -q 10.107.0.1/30",
    "nft list ruleset | grep -q 'tcp . 8080 : 10.107.0.2 . 80'",
    "nft list ruleset | grep -q 'elements = { \"uplink\" }'",
    "ss -ltn | grep -q ':8080 '",
    "grep -qx 1 /proc/sys/net/ipv4/conf/uplink/forwarding",
];

/// Interface, rules, port and forwarding, and all gone at the end, whatever is done meanwhile to rules and notes.
pub fn network() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let boot = || {
        let mut scene = Scene::enter();
        scene.script(
            0,
            "ip tuntap add dev uplink mode tap; ip addr add 198.51.100.2/24 dev uplink; ip link set uplink up; \
             ip route add default via 198.51.100.1",
        );
        for damage in [
            "true",
            "nft flush ruleset",
            "nft flush ruleset; rm /tmp/kvmlet-$A/net/forwarding-*",
        ] {
            scene.background(
                ATTACKER,
                "echo $$ >/tmp/pid; exec /mnt/bin/kvmlet-capable boot --kernel /mnt/bin/spin --net -p 8080:80",
            );
            for condition in THERE {
                eventually(condition, || scene.holds(condition));
            }
            // NET_ADMIN alone, of what the file gives.
            scene.script(
                0,
                "grep -q '^CapPrm:.*0000000000001000$' /proc/$(cat /tmp/pid)/status",
            );
            scene.script(0, damage);
            for condition in THERE {
                eventually(condition, || scene.holds(condition));
            }
            scene.script(0, "kill $(cat /tmp/pid)");
            eventually("it has ended", || {
                scene.holds("! test -d /proc/$(cat /tmp/pid)/task || grep -q '^State:.Z' /proc/$(cat /tmp/pid)/status")
            });
            for gone in [
                "! ip link show dev kvmlet0",
                "! nft list ruleset | grep -q kvmlet",
                "! ss -ltn | grep -q ':8080 '",
                "grep -qx 0 /proc/sys/net/ipv4/conf/uplink/forwarding",
                "test \"$(echo $(ls /tmp/kvmlet-$A/net))\" = 'lock roll'",
            ] {
                eventually(&format!("{damage}: {gone}"), || scene.holds(gone));
            }
        }
    };
    std::thread::spawn(boot).join().unwrap();
}
