//! VMs on each clock source that an x86 host can have. Where it is not the TSC, reading the clock is a system call,
//! for every thread in its jail as well, and KVM's paravirtual clock has no master to follow.

use crate::Test;
use crate::host::Host;
use crate::task::{Running, Task};

pub const TESTS: &[Test] = &[
    ("vms_run_on_each_clock_source", each),
    ("the_clock_source_changes_under_a_running_vm", switched),
];

const SOURCES: [&str; 3] = ["hpet", "acpi_pm", "tsc"];
const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// A machine on another clock source; dropped, it is back on its own.
struct Source<'a>(&'a Host);

impl Source<'_> {
    fn set(&self, name: &str) {
        let script = format!("echo {name} >{CURRENT}; cat {CURRENT}");
        assert_eq!(self.0.sh(&script).success().trim(), name);
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        let _ = self.0.run(Task::sh(&format!("echo tsc >{CURRENT}")));
    }
}

/// A VM in its jail, with a share of the host, a disk, and a service behind a port.
fn service(host: &Host) -> Running<'_> {
    let script = "truncate -s 4M served.img
        exec kvmlet boot --jail --cpu-quota 1 --memory 32M --disk served.img -p 8080:80 \\
            --kernel $GUESTS/net_services --cmdline mmio=0xd0003000";
    let mut vm = host.start(Task::sh(script));
    vm.until("serving");
    vm
}

fn ask(host: &Host) {
    let url = "http://127.0.0.1:8080/";
    host.run(Task::new(["curl", "-gsS", "--max-time", "30", url]))
        .success();
}

fn each(host: &Host) {
    let clock = Source(host);
    for source in SOURCES {
        clock.set(source);
        host.sh("kvmlet boot --jail --kernel $GUESTS/ready")
            .success();
        host.sh(
            "kvmlet boot --jail --memory 32M --cpu-quota 0.5 --cpuset 0 --kernel $GUESTS/ready",
        )
        .success();
        let disk = host.sh(
            "truncate -s 4M disk.img; trap 'rm disk.img' EXIT
             kvmlet boot --jail --disk disk.img,iops=1000 --kernel $GUESTS/virtio_blk --cmdline mmio=0xd0002000",
        );
        assert!(disk.success().contains("fnv1a="), "{source}");
        let vm = service(host);
        ask(host);
        vm.signal(libc::SIGTERM);
        vm.wait().ended_with(143);
    }
}

fn switched(host: &Host) {
    let clock = Source(host);
    let vm = service(host);
    let mut busy = host.start(Task::sh(
        "truncate -s 64M busy.img; trap 'rm busy.img' EXIT
         kvmlet boot --jail --balloon --memory 32M --cpus 2 --disk busy.img,iops=2000 \\
             --kernel $GUESTS/virtio_load --cmdline disks=0xd0002000 & vm=$!
         read end; kill $vm; wait $vm",
    ));
    busy.until("loaded");
    for source in SOURCES.iter().cycle().take(7) {
        clock.set(source);
        ask(host);
    }
    busy.say("end\n");
    busy.wait().ended_with(143);
    vm.signal(libc::SIGTERM);
    vm.wait().ended_with(143);
}
