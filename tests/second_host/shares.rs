//! Shares where systemd has the tree of cgroups, which is of version 2.

use crate::Test;
use crate::host::Host;
use crate::task::Task;

pub const TESTS: &[Test] = &[
    ("a_login_shell_of_root_has_shares", login_shell),
    ("two_vms_of_one_delegated_service_have_shares", service),
    ("vcpus_are_held_from_within_the_jail", vcpus_in_the_jail),
    ("what_a_killed_kvmlet_has_moved_goes_back", killed),
    ("a_parent_holds_what_is_below_it", parent),
    ("an_ordinary_user_is_told_the_way", ordinary_user),
    ("a_container_without_cgroups_is_told_so", read_only),
];

/// For scripts: a VM that runs until it is told to end, and its cgroup when it runs.
const START: &str = r#"
    start() { # NAME FLAG...
        name=$1; shift
        mkfifo /tmp/$name.in
        kvmlet boot --kernel $GUESTS/orders "$@" </tmp/$name.in >/tmp/$name.out 2>&1 &
        eval "$name=$!"
        case $name in one) exec 5>/tmp/one.in;; two) exec 6>/tmp/two.in;; esac
        for try in $(seq 600); do
            grep -q ready /tmp/$name.out && return
            sleep 0.1
        done
        cat /tmp/$name.out
        return 1
    }
    end() { rm -rf /tmp/one.* /tmp/two.*; }
    trap end EXIT
    tree=/sys/fs/cgroup
    # As systemd does it for Delegate=yes.
    delegate() {
        echo +cpu +memory +pids >$tree/system.slice/cgroup.subtree_control
        mkdir $tree/system.slice/$1
        setfattr -n user.delegate -v 1 $tree/system.slice/$1
        echo $$ >$tree/system.slice/$1/cgroup.procs
    }
"#;

fn sh(host: &Host, script: &str) -> String {
    host.sh(&(START.to_owned() + script)).success()
}

/// The example of the README.
fn login_shell(host: &Host) {
    let script = r#"
        start one --cpus 2 --cpu-quota 0.75 --cpuset 0
        cat $tree/kvmlet/kvmlet-$one-*/cpu.max
        kvmlet boot --kernel $GUESTS/ready --cpu-quota 0.5 2>&1 || echo code=$?
        kvmlet boot --kernel $GUESTS/ready --cpu-quota 0.25
        echo q >&5; wait $one
        ls -d $tree/kvmlet || cat /proc/self/cgroup
    "#;
    let output = sh(host, script);
    let (quota, rest) = output.split_once('\n').unwrap();
    assert_eq!(quota, "75000 100000");
    let refused = "error: 0.5 CPUs were asked for, 0.25 is left: 0.75 of the 1 CPU of this host is promised to 1 other VM\n";
    let rest = rest.strip_prefix(refused).expect(&output);
    assert!(
        rest.contains("code=125\nready\n0::/user.slice/"),
        "{output}"
    );
}

fn service(host: &Host) {
    let script = r#"
        delegate agent.service
        start one --cpu-quota 0.5
        start two --cpu-quota 0.25 --jail
        cd $tree/system.slice/agent.service
        cat kvmlet/kvmlet-$one-*/cpu.max kvmlet/kvmlet-$two-*/cpu.max
        cat cgroup.procs; cat cgroup.subtree_control
        cat /proc/self/cgroup
        echo q >&5; wait $one
        ls -d kvmlet kvmlet-supervisor
        echo q >&6; wait $two
        cat cgroup.subtree_control
        find . -mindepth 1 -type d
        cat /proc/self/cgroup
        cd /; echo $$ >$tree/cgroup.procs; rmdir $tree/system.slice/agent.service
    "#;
    assert_eq!(
        sh(host, script),
        "50000 100000\n25000 100000\ncpu memory\n0::/system.slice/agent.service/kvmlet-supervisor\nkvmlet\n\
         kvmlet-supervisor\n0::/system.slice/agent.service\n"
    );
}

/// No file of the cgroup is left open in there, and all walls stand.
fn vcpus_in_the_jail(host: &Host) {
    let script = r#"
        start one --cpus 2 --cpu-quota 0.5 --cpuset 0 --cpu-scope vcpus --jail
        cd $tree/kvmlet/kvmlet-$one-*
        cat cpu.max vcpus/cpu.max vcpus/cpuset.cpus
        for thread in $(cat vcpus/cgroup.threads); do cat /proc/$thread/comm; done
        vm=$(cat /proc/$one/task/$one/children)
        vm=${vm%% *}
        ls -l /proc/$vm/fd | grep -c -e cgroup -e '-> /$' || true
        ls /proc/$vm/fd | sort -n | tail -1
        sed -n 's/^Max open files *\([0-9]*\).*/\1/p' /proc/$vm/limits
        echo q >&5; wait $one
    "#;
    let output = sh(host, script);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["max 100000", "50000 100000", "0"], "{output}");
    let threads = &lines[3..lines.len() - 3];
    assert!(
        threads.contains(&"vcpu0") && threads.contains(&"vcpu1"),
        "{output}"
    );
    let others = |name: &&&str| !name.starts_with("vcpu") && !name.starts_with("kvm-");
    assert_eq!(threads.iter().find(others), None, "{output}");
    let [open, highest, limit] = lines[lines.len() - 3..] else {
        panic!("{output}")
    };
    assert_eq!(open, "0", "{output}");
    let number = |text: &str| text.parse::<u64>().expect(&output);
    assert!(number(limit) < number(highest) + 100, "{output}");
}

fn killed(host: &Host) {
    let script = r#"
        delegate agent.service
        cd $tree/system.slice/agent.service
        start one --cpu-quota 0.5 --cpu-scope vcpus
        start two --memory-mode shared
        kill -9 $one $two
        wait $one $two || true
        ls -d kvmlet/*-$one-* kvmlet-supervisor | wc -l
        kvmlet boot --kernel $GUESTS/ready
        find . -mindepth 1 -type d
        cat cgroup.subtree_control /proc/self/cgroup
        ls /run/kvmlet/ledger
        cd /; echo $$ >$tree/cgroup.procs; rmdir $tree/system.slice/agent.service
    "#;
    assert_eq!(
        sh(host, script),
        "2\nready\n0::/system.slice/agent.service\nlock\nroll\n"
    );
}

fn parent(host: &Host) {
    let script = r#"
        mkdir $tree/tenants
        echo +memory >$tree/tenants/cgroup.subtree_control
        start one --cgroup-parent /tenants/a
        start two --cgroup-parent $tree/tenants/a --cpu-quota 0.5
        cat $tree/tenants/a/kvmlet/kvmlet-$two-*/cpu.max
        echo q >&5; wait $one
        find $tree/tenants -name 'kvmlet-*'
        echo q >&6; wait $two
        find $tree/tenants -mindepth 1 -type d
        rmdir $tree/tenants
        kvmlet boot --kernel $GUESTS/ready --cgroup-parent $(sed 's/0:://' /proc/self/cgroup) 2>&1 || echo code=$?
    "#;
    let output = sh(host, script);
    assert!(
        output.starts_with("50000 100000\n/sys/fs/cgroup/tenants/a/kvmlet/kvmlet-"),
        "{output}"
    );
    let refused =
        "  caused by: processes are in the cgroup `/sys/fs/cgroup/user.slice/user-0.slice/session-";
    assert!(
        output.contains(refused) && output.ends_with("code=125\n"),
        "{output}"
    );
}

fn ordinary_user(host: &Host) {
    let command = "kvmlet boot --kernel $GUESTS/ready --cpu-quota 0.5";
    let output = host.run(Task::sh(command).user(1000)).ended_with(125);
    let way = "systemd-run --user --scope -p Delegate=yes kvmlet";
    assert!(output.stderr.contains(way), "{output}");
    let doctor = host.run(Task::sh("kvmlet doctor").user(1000));
    assert!(doctor.stdout.contains(way), "{doctor}");
    let anyway = format!("{command} --best-effort");
    let output = host.run(Task::sh(&anyway).user(1000)).ended_with(0);
    assert!(output.stderr.contains("WARN"), "{output}");
    // As in a desktop's terminal, which is in the user's own service.
    let script = r#"
        service=$tree/user.slice/user-1000.slice/user@1000.service
        echo +cpu +memory +pids >$tree/user.slice/user-1000.slice/cgroup.subtree_control
        mkdir -p $service/app.slice/terminal.scope
        setfattr -n user.delegate -v 1 $service
        echo +cpu +memory +pids >$service/cgroup.subtree_control
        chown -R 1000:1000 $service
        echo $$ >$service/app.slice/terminal.scope/cgroup.procs
        setpriv --reuid 1000 --regid 1000 --groups $(stat -c %g /dev/kvm) env XDG_RUNTIME_DIR=/run/user/1000 \
            kvmlet boot --kernel $GUESTS/ready --cpu-quota 0.5
        find $service -name 'kvmlet*'
        echo $$ >$tree/cgroup.procs
        rmdir $service/app.slice/terminal.scope $service/app.slice $service
    "#;
    assert_eq!(sh(host, script), "ready\n");
}

fn read_only(host: &Host) {
    let script = r#"
        unshare --mount --cgroup sh -euc '
            umount /sys/fs/cgroup
            mount -t cgroup2 -o ro none /sys/fs/cgroup
            kvmlet boot --kernel $GUESTS/ready --cpu-quota 0.5
        ' 2>&1 || echo code=$?
    "#;
    let output = sh(host, script);
    let text = "caused by: no cgroups can be made here: `/sys/fs/cgroup` is mounted read-only";
    assert!(
        output.contains(text) && output.ends_with("code=125\n"),
        "{output}"
    );
}
