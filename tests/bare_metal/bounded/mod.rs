//! A VM can always be paused, stopped and dropped within a stated time, and its log stays short: whatever its guest, its
//! disk or the reader of its console does.

mod hung_file;

use crate::cli::{kvmlet, text};
use crate::harness::{Test, patience::eventually, program};
use hung_file::HungFile;
use kvmlet::config::{Balloon, Disk, DiskIo};
use kvmlet::{Error, MemorySize, Vm, VmConfig, VmHandle};
use rustix::io::ioctl_fionread;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::process::Stdio;
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

const DEVICES: &str = "devices=d0001000,d0002000,d0003000 out=1";

fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let done = act();
    let took = since.elapsed();
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

/// A guest that asks all that it can of an entropy source, a disk and a balloon, and writes to its console, which is
/// a pipe that is full when this returns.
fn flooding(disk: Disk) -> (VmHandle, PipeReader) {
    let config = VmConfig::builder()
        .kernel(program("virtio_flood"))
        .memory(48.mib())
        .vcpus(2)
        .disk(disk)
        .balloon(Balloon::default())
        .cmdline(DEVICES);
    let (mut reader, writer) = small_pipe();
    let look = writer.try_clone().unwrap();
    let vm = Vm::with_console(config.build().unwrap(), writer)
        .and_then(Vm::start)
        .unwrap();
    let mut said = [0; 8];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"flooding");
    eventually("the pipe is full", || {
        ioctl_fionread(&look).unwrap() >= (PIPE_BYTES - said.len()) as u64
    });
    (vm, reader)
}

fn floods() {
    for io in [DiskIo::Auto, DiskIo::Sync] {
        // One of its own: where the machine is busy, the kernel may still have the other.
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 30).unwrap();
        let mut disk = Disk::read_write(image.path());
        disk.io = io;
        let (vm, mut reader) = flooding(disk);
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

fn hung_disk() {
    for io in [DiskIo::Auto, DiskIo::Sync] {
        let file = match HungFile::new() {
            Ok(file) => file,
            Err(error) => return println!("SKIPPED: no FUSE here: {error}"),
        };
        let mut disk = Disk::read_write(file.path());
        (disk.io, disk.format) = (io, Some(kvmlet::config::DiskFormat::Raw));
        let (vm, _reader) = flooding(disk);
        let paused = in_time("pause", || vm.pause());
        assert!(
            matches!(&paused, Err(Error::Unsettled { device }) if device == "vda"),
            "{paused:?}"
        );
        in_time("stop", || vm.stop());
        in_time("drop", || drop(vm));
    }
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
    let mut command = kvmlet("virtio_flood");
    let cmdline = "mode=reset devices=d0001000,d0002000,d0003000";
    let arguments = ["--disk", path, "--balloon", "--cmdline", cmdline];
    let child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(seconds));
    // SAFETY: the child has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    for device in ["rng:", "vda:", "balloon:"] {
        let lines = said.lines().filter(|line| line.contains(device)).count();
        println!("{device} {lines} lines in {seconds} s");
        assert!(lines > 0 && lines as u64 <= 10 + seconds, "{said}");
    }
}
