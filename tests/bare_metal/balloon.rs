//! The balloon with a driver in the guest: what it gives back, the host has again.

use crate::harness::{Guest, Test, deadline, patience::eventually, program};
use kvmlet_spec::{Balloon, HugePages, Memory, MemorySize};
use kvmlet_vmm::ExitReason;
use kvmlet_vmm::devices::virtio::balloon::{BalloonHandle, Error};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("balloon_gives_memory_back_and_takes_it_again", || {
        memory_comes_back(HugePages::Off)
    }),
    ("balloon_gives_back_parts_of_huge_pages", || {
        memory_comes_back(HugePages::Transparent)
    }),
    ("balloon_has_a_size_from_the_start", size_from_the_start),
    ("balloon_asks_the_guest_only_when_asked", statistics),
    ("balloon_by_flags_is_in_the_statistics", command_line),
    ("balloon_that_is_too_large_is_refused", too_large),
];

/// The balloon is behind the entropy source.
const CMDLINE: &str = "mmio=0xd0002000 pages=8192";
const PAGES: u64 = 8192;
const PAGE: u64 = 4096;
/// What else the guest touches meanwhile: stack, rings, the page tables that KVM keeps are not among it.
const SLACK: u64 = 64 * PAGE;
const HUGE_PAGE: u64 = 2 << 20;

fn boot(balloon: &str, pages: HugePages) -> Guest {
    let balloon: Balloon = balloon.parse().unwrap();
    let guest = Guest::boot_with("virtio_balloon", |c| {
        c.memory(64.mib())
            .huge_pages(pages)
            .cmdline(CMDLINE)
            .balloon(balloon)
    });
    guest.output.expect("features=");
    guest
}

fn balloon(guest: &Guest) -> &BalloonHandle {
    guest.vm.balloon().unwrap()
}

fn resident(guest: &Guest) -> u64 {
    guest.vm.stats().memory.resident_bytes.unwrap()
}

/// Changes the target and waits until the guest is there and has said so.
fn resize(guest: &Guest, pages: u64) {
    let size = Memory::from_bytes(pages * PAGE);
    balloon(guest).set_target(size).unwrap();
    guest.output.expect(&format!("balloon={pages}\n"));
    assert_eq!(balloon(guest).actual(), size);
}

fn finish(guest: Guest) {
    guest.send(b"q");
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 0 }, "{output}");
}

#[track_caller]
fn assert_near(bytes: u64, expected: u64, slack: u64) {
    assert!(
        bytes.abs_diff(expected) <= slack,
        "{bytes} bytes, not {expected}"
    );
}

fn memory_comes_back(backing: HugePages) {
    // With huge pages, what else the guest touches may come with all that is beside it.
    let slack = match backing {
        HugePages::Off => SLACK,
        _ => SLACK + HUGE_PAGE,
    };
    let near = |bytes, expected| assert_near(bytes, expected, slack);
    let guest = boot("", backing);
    guest.send(b"t");
    guest.output.expect("touched=8192\n");
    let full = resident(&guest);
    assert!(full >= PAGES * PAGE, "{full}");

    resize(&guest, 6144);
    near(resident(&guest), full - 6144 * PAGE);
    resize(&guest, 0);
    // Exactly the pages that were in the balloon are empty; only to look at them costs the host nothing.
    guest.send(b"c");
    guest.output.expect("empty=6144 held=2048\n");
    guest.send(b"t");
    eventually("all is touched again", || {
        guest.output.text().matches("touched=8192\n").count() == 2
    });
    guest.send(b"c");
    guest.output.expect("empty=0 held=8192\n");
    near(resident(&guest), full);

    guest.send(b"r");
    guest.output.expect("reported=8192\n");
    near(resident(&guest), full - PAGES * PAGE);
    guest.send(b"c");
    guest.output.expect("empty=8192 held=0\n");

    let stats = balloon(&guest).stats();
    assert_eq!((stats.target_bytes, stats.actual_bytes), (0, 0));
    assert_eq!(stats.inflated_bytes, 6144 * PAGE);
    assert_eq!(stats.deflated_bytes, 6144 * PAGE);
    assert_eq!(stats.reported_bytes, PAGES * PAGE);
    assert_eq!(stats.refused_pages, 0);
    finish(guest);
}

fn size_from_the_start() {
    let guest = boot("size=8M,deflate-on-oom=off,reporting=off", HugePages::Off);
    // Statistics, and nothing that was switched off.
    guest.output.expect("features=0x2 ");
    guest.output.expect("balloon=2048\n");
    assert_eq!(balloon(&guest).actual(), 8.mib());
    assert!(balloon(&guest).set_target(49.mib()).is_err());
    resize(&guest, 1024);
    finish(guest);
    let guest = boot("", HugePages::Off);
    guest.output.expect("features=0x26 ");
    finish(guest);
}

fn statistics() {
    let guest = boot("", HugePages::Off);
    let handle = balloon(&guest).clone();
    eventually("the guest tells its statistics unasked once", || {
        handle.stats().guest.is_some()
    });
    for answer in 1..4 {
        let told = handle.ask_guest(deadline()).unwrap();
        assert_eq!(
            told.minor_faults,
            Some(answer),
            "one exchange for a question"
        );
        assert_eq!(told.total_bytes, Some(PAGES * PAGE));
        assert_eq!(told.free_bytes, Some(PAGES * PAGE));
    }
    resize(&guest, 512);
    let told = handle.ask_guest(deadline()).unwrap();
    assert_eq!(told.free_bytes, Some((PAGES - 512) * PAGE));
    // A guest that stands still does not answer, and answers later.
    guest.vm.pause().unwrap();
    let error = handle.ask_guest(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
    guest.vm.resume().unwrap();
    handle.ask_guest(deadline()).unwrap();
    assert!(handle.stats().guest_age_ms.is_some());
    finish(guest);
}

fn kvmlet(balloon: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(["boot", "--memory", "64M", "--cmdline", CMDLINE, "--kernel"])
        .arg(program("virtio_balloon"))
        .args(["--balloon", balloon])
        .stdin(Stdio::null());
    command
}

fn command_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats.json");
    let mut command = kvmlet("size=8M");
    command.arg("--stats").arg(&path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let inflated = lines.map(Result::unwrap).any(|line| line == "balloon=2048");
    assert!(inflated, "the guest ends before its balloon is full");
    let signal = |signal| {
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(child.id() as i32, signal) };
    };
    signal(libc::SIGUSR1);
    eventually("there are statistics", || path.exists());
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    signal(libc::SIGTERM);
    child.wait().unwrap();
    let balloon = &stats["balloon"];
    assert_eq!(balloon["target_bytes"], 8 << 20, "{stats:#}");
    assert_eq!(balloon["actual_bytes"], 8 << 20, "{stats:#}");
    assert_eq!(
        balloon["guest"]["free_bytes"],
        (PAGES - 2048) * PAGE,
        "{stats:#}"
    );
    assert_eq!(
        balloon["guest"]["minor_faults"], 1,
        "the signal asked the guest"
    );
    assert_eq!(stats["memory"]["bytes"], 64 << 20, "{stats:#}");
    let resident = stats["memory"]["resident_bytes"].as_u64().unwrap();
    assert!(resident < 56 << 20, "{stats:#}");
}

fn too_large() {
    let output = kvmlet("49M").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(
        message.contains(
            "a balloon of 49 MiB leaves less than 16 MiB of the guest's 64 MiB; 48 MiB is the most"
        ),
        "{message}"
    );
}
