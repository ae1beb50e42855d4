//! A service by somebody who may open /dev/kvm and has no other right, with a port that passt carries.

use crate::cache;
use crate::harness::Test;
use crate::script::Script;

pub const TESTS: &[Test] = &[("a_user_without_rights_publishes_a_port", run)];

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root can become a user in a group of its choice");
    }
    let place = tempfile::tempdir().unwrap();
    // A device node of the test's own, for a group that has no other use, and a network in which no port is taken.
    let script = r#"
        set -eu; ip link set lo up; ip link add uplink type veth peer name other; ip link set other up; ip addr add 10.9.8.7/24 dev uplink; ip link set uplink up
        ip route add default via 10.9.8.1
        mount -t tmpfs -o dev,mode=755 own .; cd "$PWD"; mknod kvm c $(stat -c '0x%t 0x%T' /dev/kvm); chgrp 4242 kvm; chmod 660 kvm
        mount --bind kvm /dev/kvm; cp "$K" "$K-verbs" .
        for it in kernels images; do mkdir -p cache/kvmlet/$it; done
        for it in microvm software-kvm; do [ ! -d "$C/kernels/$it" ] || cp -rL "$C/kernels/$it" cache/kvmlet/kernels/; done
        cp -L "$C"/images/*.cpio "$C/images/nginx.erofs" cache/kvmlet/images/
        mkdir state run; chmod -R a+rX .; chown 4243 state run; chmod 700 state run
        exec env HOME=$PWD/state XDG_STATE_HOME=$PWD/state XDG_RUNTIME_DIR=$PWD/run XDG_CACHE_HOME=$PWD/cache \
            setpriv --reuid 4243 --regid 4243 --groups 4242 --bounding-set=-all --no-new-privs sh -euc '
            trap "./kvmlet rm -f web >/dev/null 2>&1 || true" EXIT
            ./kvmlet run -d --name web -p 8080:80 cache/kvmlet/images/nginx.erofs
            until curl -fsS --max-time 10 http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.5; done
            ./kvmlet port web; ./kvmlet stop web; ./kvmlet rm web; ./kvmlet ps -aq'
        "#;
    let script = Script::new(script, place.path(), 1)
        .alone()
        .env("C", cache());
    let (out, err) = script.run();
    assert!(
        out.contains("answers from inside a microVM"),
        "{out}\n{err}"
    );
    assert!(out.ends_with("web\nweb\n"), "{out}\n{err}");
}
