//! kvmlet's own kernel and images where guests' kernels run as on hardware.

use crate::Test;
use crate::host::Host;
use crate::task::Task;
use serde_json::Value;

pub const TESTS: &[Test] = &[
    ("nginx_serves_pages", nginx),
    ("the_last_words_of_a_service_arrive", last_words),
    ("a_service_that_is_to_end_gets_no_more_time", stubborn),
    (
        "the_hosts_kernel_serves_an_interface_within_the_share",
        served_by_the_kernel,
    ),
    (
        "a_guest_is_asked_for_its_health_and_told_the_time",
        looked_after,
    ),
];

/// With all that a VM can have. What it has told of itself goes to standard output.
const NGINX: &str = r#"
    directory=$(mktemp -d)
    cd $directory
    truncate -s 8M disk.img
    vm=
    end() {
        code=$?
        [ $code = 0 ] || cat console errors >&2
        [ -z "$vm" ] || kill -9 $vm 2>/dev/null || true
        cd /
        rm -r $directory
    }
    trap end EXIT
    page() { curl -gsS --max-time 10 "$@" 2>>errors; }
    kvmlet boot --jail --cpu-quota 1 --memory 128M --balloon --disk disk.img -p 8080:80 --stats stats.json \
        --root ${XDG_CACHE_HOME:-$HOME/.cache}/kvmlet/images/nginx.erofs </dev/null >console 2>&1 &
    vm=$!
    # Bash's own clock.
    until page http://127.0.0.1:8080/ >page; do
        kill -0 $vm
        ((SECONDS < 150))
        sleep 0.5
    done
    echo "up after $SECONDS s" >&2
    grep -q 'nginx answers from inside a microVM' page
    for address in 127.0.0.1 [::1] 127.0.0.1 [::1]; do
        page http://$address:8080/ | cmp page
    done
    [ "$(page -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/nothing-there)" = 404 ]
    [ "$(cat /sys/fs/cgroup/kvmlet/kvmlet-$vm-*/cpu.max)" = "100000 100000" ]
    # The driver of the guest looks for free memory every two seconds.
    for try in $(seq 60); do
        rm -f stats.json
        kill -USR1 $vm
        until [ -s stats.json ]; do sleep 0.1; done
        grep -q '"reported_bytes": *[1-9]' stats.json && break
        sleep 1
    done
    cat stats.json
    kill $vm
    code=0
    wait $vm || code=$?
    # Nobody waits for the end of a network.
    for try in $(seq 100); do
        left=$(ip -o link | grep -v ': lo:' || true; nft list ruleset)
        [ -n "$left" ] || break
        sleep 0.1
    done
    echo "code $code, left behind: '$left'" >&2
    [ $code = 0 ] && [ -z "$left" ]
"#;

fn nginx(host: &Host) {
    let output = host.run(Task::new(["bash", "-euo", "pipefail", "-c", NGINX]).patience(240));
    println!("{}", output.stderr.trim());
    let stats: Value = serde_json::from_str(&output.success()).unwrap();
    let count = |place: &str| stats.pointer(place).and_then(Value::as_u64);
    for place in [
        "/disks/0/read_bytes",
        "/interfaces/0/transmit/bytes",
        "/balloon/reported_bytes",
    ] {
        assert!(count(place) > Some(0), "{place}: {stats:#}");
    }
    // Its kernel looks for no partitions, and nobody reads the other disk.
    assert_eq!(count("/disks/1/errors"), Some(0), "{stats:#}");
}

/// What was written last is still in the terminal's buffer when its writer ends. On another CPU than that which empties
/// the buffer it was lost once in six boots, while the service was the leader of the terminal's session.
fn last_words(host: &Host) {
    for _ in 0..6 {
        let output = host
            .sh("kvmlet boot --cpus 2 --memory 64M -- sh -c 'seq 1 300; echo LAST-LINE; exit 7' </dev/null")
            .ended_with(7);
        let words = output.stdout.lines().last().map(str::trim_end);
        assert_eq!(words, Some("LAST-LINE"), "{output}");
    }
}

/// A service that does not end when it is asked to is killed when its time is up, whatever signals come to the guest's
/// first process meanwhile. Were that any later, the host would have cut the guest's power.
fn stubborn(host: &Host) {
    let service = "trap : TERM HUP
        (while :; do sleep 1; kill -HUP 1; done) &
        echo up; while :; do sleep 1; done";
    let boot =
        format!("exec kvmlet boot --stop-timeout 4 --memory 64M -- sh -c '{service}' </dev/null");
    let mut vm = host.start(Task::sh(&boot).patience(120));
    vm.until("up");
    vm.signal(libc::SIGTERM);
    // 128 and SIGKILL, as a shell tells it; a power cut would be 128 and SIGTERM.
    vm.wait().ended_with(137);
}

/// Its driver waits for interrupts, which the kernel sends; and the kernel's thread is in the VM's cgroup.
const VHOST: &str = r#"
    directory=$(mktemp -d)
    cd $directory
    vm=
    end() {
        code=$?
        [ $code = 0 ] || cat console >&2
        [ -z "$vm" ] || kill -9 $vm 2>/dev/null || true
        cd /
        rm -r $directory
    }
    trap end EXIT
    kvmlet boot --jail --cpu-quota 1 --net vhost --memory 64M -- sh -c '
        gateway=$(ip route | sed -n "s/default via \([^ ]*\).*/\1/p")
        ping -c 20 -i 0.02 -s 1400 -q $gateway
        echo "it is" over
        sleep 1000' </dev/null >console 2>&1 &
    vm=$!
    until grep -q "it is over" console; do
        kill -0 $vm
        ((SECONDS < 100))
        sleep 0.2
    done
    grep -q " 0% packet loss" console
    cd /sys/fs/cgroup/kvmlet/kvmlet-$vm-*
    cat cpu.max
    # The kernel calls its thread so, and by the number of whoever has asked for it.
    for thread in $(cat cgroup.threads); do cat /proc/$thread/comm; done | grep -c "^vhost-"
    cd $directory
    kill -9 $vm
    wait $vm || true
    for try in $(seq 100); do
        pgrep "^vhost-" >/dev/null || break
        sleep 0.1
    done
    pgrep "^vhost-" || echo none is left
"#;

fn served_by_the_kernel(host: &Host) {
    let output = host.run(Task::new(["bash", "-euo", "pipefail", "-c", VHOST]).patience(240));
    assert_eq!(output.success(), "100000 100000\n1\nnone is left\n");
}

/// Health checks by the guest's own shell, and a clock that follows the host's when that is set.
const LOOKED_AFTER: &str = r#"
    directory=$(mktemp -d)
    cd $directory
    offset=5000
    end() {
        code=$?
        [ $code = 0 ] || { kvmlet logs --console web; kvmlet inspect web; } >&2
        date -s @$(($(date +%s) - (${set:-0}))) >/dev/null
        kvmlet rm -f web >/dev/null || true
        cd /
        rm -r $directory
    }
    trap end EXIT
    mkdir -p root/bin root/etc/kvmlet
    cp $(command -v busybox) root/bin/busybox
    for name in sh date sleep touch; do ln -s busybox root/bin/$name; done
    echo '{"command": ["sleep", "1000"], "env": {"OF": "image"}, "workdir": "/tmp"}' >root/etc/kvmlet/service.json
    health() { kvmlet inspect --format '{{.State.Health.Status}}' web; }
    kvmlet run -d --name web -m 64m --health-cmd '[ ! -e ill ] && echo $OF' --health-interval 500ms --health-retries 1 root >/dev/null
    until [ "$(health)" = healthy ]; do sleep 0.2; done
    kvmlet inspect --format '{{json .State.Health.Log}}' web | grep -o '"ExitCode":0,"Output":"image.n"' | head -n 1
    date -s @$(($(date +%s) + offset)) >/dev/null
    set=$offset
    until kvmlet logs --console web 2>&1 | grep -q "the guest's clock was set: it was [45][0-9]* s behind"; do sleep 0.2; done
    apart=$(($(date +%s) - $(kvmlet exec web date +%s)))
    [ $apart -ge -5 ] && [ $apart -le 5 ] && echo together
    kvmlet exec web touch ill
    until [ "$(health)" = unhealthy ]; do sleep 0.2; done
"#;

fn looked_after(host: &Host) {
    let task = Task::new(["bash", "-euo", "pipefail", "-c", LOOKED_AFTER]).patience(180);
    let output = host.run(task).success();
    assert_eq!(output, "\"ExitCode\":0,\"Output\":\"image\\n\"\ntogether\n");
}
