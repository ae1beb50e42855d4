//! A Linux guest and its balloon: one boot, watched and steered through the library.

use crate::harness::{Guest, Output, Test};
use crate::{DEADLINE, cache};
use kvmlet_spec::{Balloon, Memory, MemorySize, VmConfig};
use kvmlet_sys::kvm::Execution;
use kvmlet_vmm::devices::virtio::balloon::BalloonHandle;
use kvmlet_vmm::{ExitReason, Vm};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("idle_memory_comes_back_from_linux", idle_memory)];

const MIB: u64 = 1 << 20;
/// What the guest writes to a file and removes again, in bytes.
const FILE: u64 = 8 * MIB;
/// What the balloon leaves the guest then; its next file is 1 MiB larger.
const LEFT: u64 = 10 * MIB;

/// Each step waits for a line, so that the other side can look in between.
const SCRIPT: &str = "say() { echo now:$1; read next; }
    mkdir /big; mount -t tmpfs -o size=100% big /big; say up
    dd if=/dev/zero of=/big/file bs=1M count=8; say filled
    rm /big/file; say removed
    dd if=/dev/zero of=/big/file bs=1M count=11; say hogged
    exit 5";

struct Linux {
    guest: Guest,
    balloon: BalloonHandle,
}

impl Linux {
    fn boot() -> Self {
        let flavour = Execution::detect().unwrap().kernel_flavour();
        let config = VmConfig::builder()
            .kernel(cache().join("kernels").join(flavour).join("vmlinux"))
            .initrd(cache().join("images/minimal.cpio"))
            .cmdline("console=ttyS0 reboot=k panic=-1")
            .memory(40.mib())
            .balloon(Balloon::default())
            .command(["sh", "-c", SCRIPT]);
        let output = Output::default();
        let vm = Vm::with_console(config.build().unwrap(), output.clone());
        let vm = vm.and_then(Vm::start).unwrap();
        let balloon = vm.balloon().unwrap().clone();
        let guest = Guest { vm, output };
        Self { guest, balloon }
    }

    /// Tries until it is so, as long as a boot may take.
    fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let start = Instant::now();
        let deadline = start + DEADLINE;
        while !happened() {
            let (stats, console) = (self.balloon.stats(), self.guest.output.text());
            let resident = self.resident();
            assert!(
                Instant::now() < deadline,
                "{what} never happened; {resident} resident, {stats:?}, console: {console}"
            );
            // The pause between attempts; what counts is that it happens, not when.
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    }

    /// Waits until the script is there.
    fn step(&self, name: &str) {
        self.until(name, || {
            self.guest.output.text().contains(&format!("now:{name}"))
        });
    }

    fn go_on(&self) {
        self.guest.send(b"\n");
    }

    fn resident(&self) -> u64 {
        self.guest.vm.stats().memory.resident_bytes.unwrap()
    }

    fn free(&self) -> u64 {
        let told = self.balloon.ask_guest(DEADLINE).unwrap();
        told.free_bytes.unwrap()
    }
}

fn idle_memory() {
    let linux = Linux::boot();
    linux.step("up");
    let told = linux.balloon.ask_guest(DEADLINE).unwrap();
    assert!(told.total_bytes.unwrap() > 20 * MIB, "{told:?}");
    assert!(told.available_bytes.unwrap() > 12 * MIB, "{told:?}");
    assert!(told.minor_faults.unwrap() > 0, "{told:?}");
    let before = linux.resident();

    linux.go_on();
    linux.step("filled");
    let filled = linux.resident();
    assert!(filled > before + FILE / 2, "{before} {filled}");
    linux.go_on();
    linux.step("removed");
    linux.until("free memory comes back", || {
        linux.resident() < filled - FILE * 3 / 4
    });
    assert!(linux.balloon.stats().reported_bytes > FILE * 3 / 4);

    // The guest may have more to free than what its host has seen of it.
    let mut free = linux.free();
    linux.until("the guest has freed all", || {
        let before = std::mem::replace(&mut free, linux.free());
        before.abs_diff(free) < MIB / 4
    });
    let target = Memory::from_bytes((free - LEFT) / 4096 * 4096);
    linux.balloon.set_target(target).unwrap();
    linux.until("the balloon is full", || linux.balloon.actual() == target);
    let inflated = linux.free();
    assert!(inflated < LEFT + MIB, "{free} {inflated}");
    assert!(linux.balloon.stats().inflated_bytes >= target.bytes());
    assert_eq!(linux.balloon.stats().refused_pages, 0);

    // More than is left: the guest takes it out of the balloon, and nobody has to die.
    linux.go_on();
    linux.step("hogged");

    let told = linux.balloon.ask_guest(DEADLINE).unwrap();
    let console = linux.guest.output.text();
    assert_eq!(told.oom_kills, Some(0), "{told:?}, console: {console}");
    let left = linux.balloon.actual();
    assert!(left < target, "{left} of {target}");
    linux.go_on();
    let reason = linux.guest.vm.wait().unwrap();
    assert_eq!(reason, ExitReason::Shutdown { code: 5 });
}
