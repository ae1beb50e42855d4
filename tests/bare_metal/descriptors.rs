//! Disks and taps that whoever starts a VM has open: it takes them as they are, wherever they are.

use crate::harness::{Test, deadline, program};
use crate::packets::{enter_own_network, frame, packet_socket};
use crate::virtio::{BLK, DISK_BYTES};
use kvmlet_run::Error;
use kvmlet_run::instance::{Instance, Running, Surroundings};
use kvmlet_spec::{Disk, JailMode, MemorySize, Net, Reason, VmConfig, VmConfigBuilder};
use kvmlet_sys::tap::Unattached;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("an_embedder_gives_disks_that_are_open", disks),
    ("an_embedder_gives_a_tap_of_another_network_namespace", tap),
];

fn config(name: &str, cmdline: &str) -> VmConfigBuilder {
    let config = VmConfig::builder().kernel(program(name)).cmdline(cmdline);
    config.memory(64.mib()).jail(JailMode::Required)
}

fn start(config: VmConfigBuilder) -> Result<Running, Error> {
    Instance::start(config.build().unwrap(), Surroundings::default())
}

/// Why a VM has not started.
fn refused(started: Result<Running, Error>) -> String {
    match started.unwrap_err() {
        Error::Start(failure) => {
            let cause = failure.cause.as_ref().map(ToString::to_string);
            format!("{failure}: {}", cause.unwrap_or_default())
        }
        other => panic!("{other}"),
    }
}

fn disks() {
    // A file without a name.
    let file = tempfile::tempfile().unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let open = || file.try_clone().unwrap();
    let disk = Disk::read_write("data").open(open());
    let mut running = start(config("virtio_blk", BLK).disk(disk)).unwrap();
    let outcome = running.wait().unwrap();
    assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(0)));
    let stats = outcome.stats.unwrap();
    assert!(stats.vm.disks[0].written_bytes > 0, "{stats:?}");
    let mut written = Vec::new();
    (&file).read_to_end(&mut written).unwrap();
    assert!(written.iter().any(|byte| *byte != 0));
    // What may be written to is so in no process of a VM that only reads it, and is locked there.
    let reader = || Disk::read_only("data").open(open());
    let running = start(config("spin", "period=0").disk(reader())).unwrap();
    let vm = vm_of(running.pid());
    assert_eq!(access_of(vm, &file), [libc::O_RDONLY]);
    let writer = config("spin", "period=0").disk(Disk::read_write("data").open(open()));
    let said = refused(start(writer));
    assert!(said.contains("disk `data` is in use already"), "{said}");
    drop(running);
    let read_only = File::open(format!("/proc/self/fd/{}", raw(&file))).unwrap();
    let writer = Disk::read_write("data").open(read_only);
    let said = refused(start(config("spin", "").disk(writer)));
    let why = "disk `data`, which was given open, is not open for reading and writing";
    assert!(said.contains(why), "{said}");
    // It is for one VM.
    let config = config("power_off", "").disk(reader()).build().unwrap();
    let again = config.clone();
    let first = Instance::start(config, Surroundings::default());
    assert_eq!(first.unwrap().wait().unwrap().reason, Reason::Shutdown);
    let error = Instance::start(again, Surroundings::default()).unwrap_err();
    let expected = "the descriptor of disk 0 was taken by another VM";
    assert_eq!(error.to_string(), expected);
}

fn raw(file: &impl AsFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())
}

/// The VM's process.
fn vm_of(supervisor: u32) -> u32 {
    let path = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = fs::read_to_string(path).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// How a process has a file open, once for each time.
fn access_of(process: u32, file: &File) -> Vec<i32> {
    let wanted = file.metadata().unwrap();
    let all = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .flatten();
    let same = all.filter(|it| {
        let found = fs::metadata(it.path());
        found.is_ok_and(|it| (it.dev(), it.ino()) == (wanted.dev(), wanted.ino()))
    });
    let access = |name: std::ffi::OsString| {
        let path = format!("/proc/{process}/fdinfo/{}", name.to_str().unwrap());
        let text = fs::read_to_string(path).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        i32::from_str_radix(flags.unwrap().trim(), 8).unwrap() & libc::O_ACCMODE
    };
    same.map(|it| access(it.file_name())).collect()
}

/// A queue of a tap of this thread's network namespace.
fn queue(name: &str, multi_queue: bool) -> OwnedFd {
    let (queue, _) = Unattached::open()
        .unwrap()
        .attach(name, multi_queue)
        .unwrap();
    queue.as_fd().try_clone_to_owned().unwrap()
}

fn tap() {
    let (give, given) = channel();
    let in_its_network = move || {
        if let Err(reason) = enter_own_network() {
            return println!("SKIPPED: {reason}");
        }
        let queues = ["one", "other", "many", "many"].map(|name| queue(name, name == "many"));
        let up = Command::new("ip")
            .args(["link", "set", "one", "up"])
            .status();
        assert!(up.unwrap().success());
        let mut socket = packet_socket(&CString::new("one").unwrap());
        give.send(queues).unwrap();
        let since = Instant::now();
        for (payload, comes_back) in [
            (&[7_u8; 100][..], true),
            (b"quit, filled up to the least size that a frame has", false),
        ] {
            let mut answer = [0; 2000];
            loop {
                socket.write_all(&frame(payload)).unwrap();
                match socket.read(&mut answer) {
                    _ if !comes_back => break,
                    Ok(length) if answer[..length].ends_with(payload) => break,
                    _ => assert!(since.elapsed() < deadline()),
                }
            }
        }
    };
    let tap = std::thread::spawn(in_its_network);
    let Ok([one, other, many, more]) = given.recv() else {
        return tap.join().unwrap();
    };
    let with = |name, queues: Vec<OwnedFd>| {
        start(config(name, "mmio=0xd0002000").net(Net::open(queues).unwrap()))
    };
    let again = one.try_clone().unwrap();
    let said = refused(with("power_off", vec![again, other]));
    assert!(
        said.contains("is a queue of another tap than the first"),
        "{said}"
    );
    let null = File::open("/dev/null").unwrap();
    let said = refused(with("power_off", vec![null.into()]));
    assert!(said.contains("is no queue of a tap"), "{said}");
    let both = with("power_off", vec![many, more]).unwrap().wait().unwrap();
    assert_eq!(both.reason, Reason::Shutdown);
    let mut running = with("virtio_net", vec![one]).unwrap();
    let outcome = running.wait().unwrap();
    assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(0)));
    let frames = outcome.stats.unwrap().vm.interfaces[0].transmit.frames;
    assert!(frames > 0, "{frames}");
    tap.join().unwrap();
    assert!(Net::open([]).is_err());
}
