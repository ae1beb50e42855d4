//! A pause: nothing changes guest memory, and the guest is told of it.

use crate::cli::{Running, kill, kvmlet};
use crate::harness::{Guest, Test, patience::eventually};
use crate::packets::{enter_own_network, frame, packet_socket, tap};
use crate::virtio::image;
use kvmlet_spec::{Balloon, Disk, HugePages, MemorySize, Net};
use kvmlet_vmm::{Error, VmHandle};
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("a_paused_vm_has_memory_that_nothing_changes", still_memory),
    ("a_guest_is_told_that_it_was_paused", told),
    ("a_guest_is_told_that_its_process_was_stopped", stopped),
];

/// As no other VM of these tests has it, which are of one process.
const MEMORY_MIB: u64 = 37;

/// Guest RAM, as the kernel has it mapped into this process.
fn memory_hash() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        Some((number(start)?, number(end)?))
    };
    let mut regions = maps.lines().filter_map(range);
    let (start, end) = regions
        .find(|(start, end)| end - start == MEMORY_MIB << 20)
        .expect("guest RAM");
    let mut bytes = vec![0; (end - start) as usize];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, start).unwrap();
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    hasher.finish()
}

/// On a machine that is very busy a disk may take longer than a pause waits.
fn pause(vm: &VmHandle) {
    eventually("it pauses", || match vm.pause() {
        Err(Error::Unsettled { .. }) => false,
        paused => {
            paused.unwrap();
            true
        }
    });
}

/// A guest that floods an entropy source, two kinds of disk, an interface and a balloon.
fn still_memory() {
    if let Err(reason) = enter_own_network() {
        println!("SKIPPED: no network namespace: {reason}");
        return;
    }
    let images = [image(), image()];
    let [ring, plain] = images.each_ref().map(|image| {
        image.as_file().set_len(1 << 30).unwrap();
        Disk::read_write(image.path())
    });
    let guest = Guest::boot_with("virtio_flood", |config| {
        let mut plain = plain;
        plain.io = kvmlet_spec::DiskIo::Sync;
        config
            .memory(MEMORY_MIB.mib())
            // Or the kernel makes one mapping of it and a neighbour's.
            .huge_pages(HugePages::Transparent)
            .disk(ring)
            .disk(plain)
            .net(Net::default())
            .balloon(Balloon::default())
            .cmdline("devices=d0001000,d0002000,d0003000,d0004000,d0005000")
    });
    guest.output.expect("flooding");
    let mut socket = packet_socket(&tap());
    let (frame, over) = (frame(&[7; 1000]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // It may be full, or not up yet.
                let _ = socket.write_all(&frame);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let traffic = || guest.vm.stats();
        let received = |_: ()| guest.vm.interfaces().next().unwrap().stats().receive.frames;
        eventually("frames arrive", || received(()) > 100);
        for _ in 0..2 {
            pause(&guest.vm);
            let (hash, before) = (memory_hash(), traffic());
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(memory_hash(), hash);
            let after = traffic();
            assert_eq!(after.disks[0].reads, before.disks[0].reads);
            assert_eq!(after.interfaces, before.interfaces);
            guest.vm.resume().unwrap();
            eventually("all goes on", || {
                received(()) > before.interfaces[0].receive.frames && memory_hash() != hash
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    pause(&guest.vm);
    guest.vm.stop();
}

fn told() {
    let guest = Guest::boot("kvmclock");
    guest.output.expect("ready");
    std::thread::sleep(Duration::from_millis(20));
    assert!(!guest.output.text().contains("told"));
    for times in 1..=3 {
        guest.vm.pause().unwrap();
        guest.vm.resume().unwrap();
        eventually("the guest is told", || {
            guest.output.text().matches("told").count() == times
        });
    }
}

fn stopped() {
    // Its vCPU is as often in the VM's process as it is in the guest.
    let mut command = kvmlet("kvmclock");
    command.args(["--no-jail", "--cmdline", "exits=1"]);
    let mut child = Running::spawn(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert_eq!(line(), "ready");
    for _ in 0..6 {
        kill(child.id() as i32, libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(1300));
        kill(child.id() as i32, libc::SIGCONT);
        assert_eq!(line(), "told");
    }
}
