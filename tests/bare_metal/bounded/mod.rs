//! A VM can always be paused, stopped and dropped within a stated time, and its log stays short: whatever its guest, its
//! disk or the reader of its console does.

mod hung_file;
mod stuck;

use crate::cli::kvmlet;
use crate::harness::patience::{eventually, patience};
use crate::harness::{Test, program};
use crate::packets::{enter_own_network, tap};
use hung_file::HungFile;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{Balloon, Disk, DiskIo, MemorySize, Net, VmConfig};
use kvmlet_vmm::{Error, VmHandle};
use rustix::io::ioctl_fionread;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

pub const TESTS: &[Test] = &[
    (
        "a_flooding_guest_without_readers_is_paused_and_ended_in_time",
        floods,
    ),
    (
        "a_disk_that_hangs_holds_up_neither_pause_nor_end",
        hung_disk,
    ),
    (
        "a_disk_that_hangs_holds_up_no_reset_of_any_device",
        resets_beside_hung_disk,
    ),
    ("a_vm_that_cannot_end_is_told_of", stuck::told),
    (
        "what_a_vm_leaves_that_could_not_end_is_cleared_later",
        stuck::cleared,
    ),
    (
        "a_signal_ends_a_vm_whose_console_nobody_reads",
        unread_console,
    ),
    (
        "a_guest_that_resets_its_devices_all_the_time_fills_no_log",
        reset_floods,
    ),
];

/// A tenth of a second for each, and what machines take on which other tests run.
const IN_TIME: Duration = Duration::from_millis(1100);

const PIPE_BYTES: usize = 4096;

/// An entropy source, a disk, an interface and a balloon.
const DEVICES: &str = "devices=d0001000,d0002000,d0003000,d0004000";

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let since = Instant::now();
    let done = act();
    (done, since.elapsed())
}

fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let (done, took) = timed(act);
    println!("{what}: {took:?}");
    assert!(took < IN_TIME, "{what} took {took:?}");
    done
}

/// A serial port fills a usual one only slowly.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES).unwrap();
    (reader, writer)
}

/// A guest that asks all that it can of all queues of an entropy source, a disk, an interface and a balloon, and has
/// told so on its console. The tap is still: nobody sends anything, and what the guest sends goes nowhere.
fn flooding(mut disk: Disk, option: &str) -> (VmHandle, PipeReader, PipeWriter) {
    disk.queues = 4.try_into().unwrap();
    let net = "queues=2".parse::<Net>().unwrap();
    let config = VmConfig::builder()
        .kernel(program("virtio_flood"))
        .memory(48.mib())
        .vcpus(2)
        .disk(disk)
        .net(net)
        .balloon(Balloon::default())
        .cmdline(format!("{DEVICES} {option}"));
    let (mut reader, writer) = small_pipe();
    let look = writer.try_clone().unwrap();
    let runtime = RuntimeDirectory::of_user().unwrap();
    let vm = kvmlet_run::build(config.build().unwrap(), writer, Some(&runtime)).unwrap();
    let vm = vm.start().unwrap();
    expect(&mut reader, "flooding\n");
    (vm, reader, look)
}

fn expect(reader: &mut PipeReader, text: &str) {
    let mut said = vec![0; text.len()];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), text);
}

/// The same, with a console that is a pipe which is full when this returns.
fn flooding_console(disk: Disk) -> (VmHandle, PipeReader) {
    let (vm, reader, look) = flooding(disk, "out=1");
    eventually("the pipe is full", || {
        ioctl_fionread(&look).unwrap() >= (PIPE_BYTES - 16) as u64
    });
    (vm, reader)
}

/// Is there a network of the test's own, which taps are made in?
fn has_network() -> bool {
    let entered = enter_own_network();
    if let Err(reason) = &entered {
        println!("SKIPPED: {reason}");
    }
    entered.is_ok()
}

fn floods() {
    if !has_network() {
        return;
    }
    for io in [DiskIo::Auto, DiskIo::Sync] {
        // One of its own: where the machine is busy, the kernel may still have the other.
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 30).unwrap();
        let mut disk = Disk::read_write(image.path());
        disk.io = io;
        let (vm, mut reader) = flooding_console(disk);
        // None of the queues waits for another.
        eventually("all are served", || {
            let stats = vm.stats();
            let (disk, net) = (&stats.disks[0], &stats.interfaces[0]);
            let balloon = stats.balloon.unwrap();
            let work = [
                disk.reads,
                net.transmit.frames + net.transmit.errors,
                stats.entropy.unwrap().requests,
                balloon.inflated_bytes,
                balloon.deflated_bytes,
                balloon.reported_bytes,
            ];
            work.iter().all(|work| *work > 0)
        });
        let paused = in_time("pause", || vm.pause());
        match paused {
            // Where the machine is too busy for a disk.
            Err(Error::Unsettled { .. }) => {}
            paused => {
                paused.unwrap();
                vm.resume().unwrap();
            }
        }
        // It goes on where it was, and nothing is lost.
        let mut some = vec![0; 3 * PIPE_BYTES];
        reader.read_exact(&mut some).unwrap();
        let start = some.iter().position(|byte| *byte == b'0').unwrap();
        let mut rest = some[start..].chunks_exact(16);
        assert!(rest.all(|chunk| chunk == b"0123456789abcdef"));
        in_time("stop", || vm.stop());
        in_time("drop", || drop(vm));
    }
}

/// A disk that does not answer, once for each way to ask it.
fn with_hung_disks(test: impl Fn(Disk, &HungFile)) {
    if !has_network() {
        return;
    }
    for io in [DiskIo::Auto, DiskIo::Sync] {
        let file = match HungFile::new() {
            Ok(file) => file,
            Err(error) => return println!("SKIPPED: no FUSE here: {error}"),
        };
        let mut disk = Disk::read_write(file.path());
        (disk.io, disk.format) = (io, Some(kvmlet_spec::DiskFormat::Raw));
        test(disk, &file);
    }
}

fn hung_disk() {
    with_hung_disks(|disk, file| {
        let (vm, _reader) = flooding_console(disk);
        eventually("the disk is asked", || file.is_asked());
        take_link_down();
        ends_beside_hung_disk(vm);
    });
}

/// Neither frames nor errors come of the tap from now on, and nothing can be sent.
fn take_link_down() {
    // That of the VM before may be on its way out.
    eventually("the tap is down", || {
        let tap = tap().into_string().unwrap();
        let mut ip = Command::new("ip");
        let status = ip.args(["link", "set", &tap, "down"]).status();
        status.unwrap().success()
    });
}

fn ends_beside_hung_disk(vm: VmHandle) {
    let paused = in_time("pause", || vm.pause());
    assert!(
        matches!(&paused, Err(Error::Unsettled { device }) if device == "vda"),
        "{paused:?}"
    );
    in_time("stop", || vm.stop());
    // What hangs was waited for, and is not again.
    let again = (0..5).map(|_| timed(|| vm.stop()).1).min();
    assert!(again < Some(Duration::from_millis(50)), "{again:?}");
    in_time("drop", || drop(vm));
}

/// The guest takes all back that it has asked, and does not wait: neither its vCPU does, nor whoever ends it then.
fn resets_beside_hung_disk() {
    with_hung_disks(|disk, file| {
        let (vm, mut reader, _look) = flooding(disk, "reset=1");
        take_link_down();
        eventually("the disk is asked", || file.is_asked());
        eventually("the guest takes a key", || vm.console().send(b"r") == 1);
        expect(&mut reader, "resetting\n");
        in_time("reset", || expect(&mut reader, "reset\n"));
        ends_beside_hung_disk(vm);
    });
}

fn unread_console() {
    let (reader, writer) = small_pipe();
    let look = writer.try_clone().unwrap();
    let mut child = kvmlet("spin")
        .args(["--cmdline", "period=1"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the pipe is full", || {
        ioctl_fionread(&look).unwrap() == PIPE_BYTES as u64
    });
    // With one CPU, the guest has had no time for the byte that has no room.
    std::thread::sleep(patience(Duration::from_millis(200)));
    let since = Instant::now();
    // SAFETY: the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = child.wait().unwrap();
    println!("SIGTERM: {:?}", since.elapsed());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("console output was dropped, 1 B"), "{said}");
    drop(reader);
}

/// `KVMLET_FLOOD_SECONDS=10` is the time that the limit is stated for: 20 lines of each device.
fn reset_floods() {
    let seconds = std::env::var("KVMLET_FLOOD_SECONDS").ok();
    let seconds: u64 = seconds.map_or(2, |text| text.parse().unwrap());
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let path = image.path().to_str().unwrap();
    if !has_network() {
        return;
    }
    let mut command = kvmlet("virtio_flood");
    let cmdline = format!("mode=reset {DEVICES}");
    let arguments = ["--disk", path, "--net", "queues=2", "--balloon"];
    let log = NamedTempFile::new().unwrap();
    let begun = Instant::now();
    let mut child = command
        .args(arguments)
        .args(["--cmdline", &cmdline])
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(log.path()).unwrap();
    let devices = ["rng:", "vda:", "eth0:", "balloon:"];
    eventually("each device has something to complain of", || {
        let said = said();
        devices.iter().all(|device| said.contains(device))
    });
    std::thread::sleep(Duration::from_secs(seconds));
    // SAFETY: the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    child.wait().unwrap();
    let (said, seconds) = (said(), begun.elapsed().as_secs());
    for device in devices {
        let lines = said.lines().filter(|line| line.contains(device)).count();
        println!("{device} {lines} lines in {seconds} s");
        assert!(lines as u64 <= 11 + seconds, "{said}");
    }
}
