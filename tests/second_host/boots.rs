//! That VMs start there at all.

use crate::Test;
use crate::host::Host;
use crate::task::Task;

pub const TESTS: &[Test] = &[
    ("the_host_is_what_it_should_be", host_facts),
    ("bare_metal_guests_boot_and_end", bare_metal),
    ("a_vm_in_its_jail_boots_and_ends", jailed),
    ("an_ordinary_user_boots_a_vm", ordinary_user),
    ("a_vm_takes_input_and_signals", input_and_signals),
    ("svm_is_for_those_who_ask", svm),
];

fn host_facts(host: &Host) {
    let doctor = host.sh("kvmlet doctor").success();
    assert!(doctor.contains("(VT-x or SVM)"), "{doctor}");
    assert!(doctor.contains("seccomp and Landlock"), "{doctor}");
    let facts = host.sh("cat /sys/fs/cgroup/cgroup.controllers /proc/self/cgroup
         cat /sys/devices/system/clocksource/clocksource0/available_clocksource
         nft list ruleset; ls -l /dev/kvm");
    let facts = facts.success();
    for part in [
        "cpuset cpu io memory hugetlb pids",
        "0::/user.slice/user-0.slice/session-",
        "tsc hpet acpi_pm",
        "crw-rw----",
    ] {
        assert!(facts.contains(part), "no {part:?} in {facts}");
    }
}

fn bare_metal(host: &Host) {
    for (guest, cmdline, code) in [
        ("power_off", "code=42", 42),
        ("reset", "", 129),
        ("panic", "", 134),
        ("triple_fault", "", 139),
    ] {
        let command =
            format!("kvmlet boot --no-jail --kernel $GUESTS/{guest} --cmdline '{cmdline}'");
        host.sh(&command).ended_with(code);
    }
}

fn jailed(host: &Host) {
    let output = host
        .sh("kvmlet boot --jail --kernel $GUESTS/ready")
        .ended_with(0);
    assert_eq!(output.stdout, "ready\n", "{output}");
}

fn ordinary_user(host: &Host) {
    let task = Task::sh("id -u; kvmlet boot --kernel $GUESTS/ready --cmdline \"$LINE\"");
    let output = host.run(task.user(1000).env("LINE", "nothing"));
    assert_eq!(output.success(), "1000\nready\n");
}

fn input_and_signals(host: &Host) {
    let mut vm = host.start(Task::sh("exec kvmlet boot --kernel $GUESTS/serial_echo"));
    vm.until("ready");
    vm.say("abc");
    vm.until("ABC");
    vm.signal(libc::SIGTERM);
    vm.wait().ended_with(143);
}

/// This host's KVM offers SVM to guests, so that its absence says something.
fn svm(host: &Host) {
    let offered = host.sh("cat /sys/module/kvm_amd/parameters/nested");
    assert_eq!(offered.success(), "1\n");
    let sees = |arguments: &str| {
        let output = host.sh(&format!("kvmlet boot --kernel $GUESTS/cpuid {arguments}"));
        let text = output.success();
        let registers = |leaf: &str| -> Vec<u32> {
            let line = text
                .split(&format!("\ncpuid {leaf} 0: "))
                .nth(1)
                .expect(&text);
            let line = line.lines().next().unwrap();
            let numbers = line.split_whitespace();
            numbers
                .map(|number| u32::from_str_radix(number, 16).unwrap())
                .collect()
        };
        let vmx = registers("00000001")[2] >> 5 & 1;
        let svm = registers("80000001")[2] >> 2 & 1;
        (
            vmx,
            svm,
            registers("8000000a").iter().any(|register| *register != 0),
        )
    };
    assert_eq!(sees(""), (0, 0, false));
    assert_eq!(sees("--nested"), (0, 1, true));
}
