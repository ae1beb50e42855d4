//! VMs that are saved, and go on elsewhere.

use crate::cli::{Running, run, text, vm_process};
use crate::harness::control::with_control;
use crate::harness::{Test, deadline, has_ended, patience::eventually, program};
use crate::network::no_vhost;
use crate::packets::enter_own_network;
use kvmlet_control::{Connection, Order};
use kvmlet_vmm::arch::x86_64::cpuid::Leaf;
use kvmlet_vmm::arch::x86_64::msr::Msr;
use kvmlet_vmm::snapshot::{Sink, VmState, decode, encode};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("a_vm_that_is_saved_goes_on_ten_times_over", ten_times),
    ("a_vm_with_several_vcpus_is_saved", several),
    ("memory_beyond_4_gib_is_saved", large),
    ("each_vcpu_hears_of_its_generation_first", generations),
    ("two_clones_go_on_from_one_snapshot", clones),
    ("a_disk_goes_on_as_it_was_or_not_at_all", disks),
    ("disks_and_interfaces_go_on_under_load", load),
    (
        "interfaces_of_the_hosts_kernel_go_on_under_load",
        load_of_the_kernel,
    ),
    ("a_snapshot_that_is_given_up_leaves_nothing", given_up),
    ("what_nobody_reads_is_not_saved_to_its_end", unread),
    (
        "who_saves_a_vm_beside_another_is_told_to_wait",
        beside_another,
    ),
    ("what_is_no_snapshot_is_refused", refused),
    ("a_snapshot_that_lies_is_refused", lies),
    ("a_vm_that_stands_still_is_saved_and_stands_still", paused),
    ("memory_is_of_one_moment_while_its_guest_writes", one_moment),
    ("a_vm_stands_still_until_what_was_saved_is_kept", held),
    ("who_is_about_to_halt_is_woken_elsewhere", about_to_halt),
];

const DISK: &str = "mmio=0xd0002000";
const DISK_BYTES: u64 = 8 << 20;
/// Memory that is read and compared as a whole.
const SMALL: &[&str] = &["-m", "32M"];

fn command(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.arg(verb).stdin(Stdio::null());
    command
}

/// A guest that tells how far it has come.
pub struct Worker {
    vm: Running,
    input: ChildStdin,
    lines: Receiver<String>,
    socket: PathBuf,
}

impl Worker {
    pub fn child(&self) -> &std::process::Child {
        &self.vm
    }

    /// Waits for an end that kvmlet tells of; returns its code and what was said.
    pub fn failure(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        let mut errors = self.vm.stderr.take().unwrap();
        errors.read_to_string(&mut told).unwrap();
        (self.vm.wait().unwrap().code(), told)
    }

    pub fn spawn(command: &mut Command, socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let command = with_control(command, listener.into());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut vm = Running::spawn(piped);
        let (input, output) = (vm.stdin.take().unwrap(), vm.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map_while(|line| tell.send(line).ok()).for_each(drop);
        });
        let socket = socket.into();
        Self {
            vm,
            input,
            lines,
            socket,
        }
    }

    pub fn boot(name: &str, cmdline: &str, arguments: &[&str], socket: &Path) -> Self {
        let mut boot = command("boot");
        boot.arg("--kernel").arg(program(name));
        boot.args(["--cmdline", cmdline]).args(arguments);
        Self::spawn(&mut boot, socket)
    }

    pub fn restore(file: &Path, arguments: &[&str], socket: &Path) -> Self {
        let mut restore = command("restore");
        Self::spawn(restore.args(arguments).arg(file), socket)
    }

    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(deadline()) {
            Ok(line) => line,
            Err(_) => panic!("it says nothing; it has ended: {:?}", self.vm.try_wait()),
        }
    }

    /// The next round that it tells of, whose hash is looked at, and how many other CPUs have begun.
    pub fn round(&mut self) -> (u64, u64) {
        let (round, started, _) = self.round_and_messages();
        (round, started)
    }

    /// Likewise, and how many messages of its disk have come.
    pub fn round_and_messages(&mut self) -> (u64, u64, u64) {
        // What one had begun to say when it was saved, the other ends.
        let line = loop {
            match self.line() {
                line if line.starts_with("round=") => break line,
                rest => assert!(
                    !rest.contains("failed") && !rest.contains("panicked"),
                    "{rest}"
                ),
            }
        };
        let number = |key: &str, radix| {
            let word = line.split(key).nth(1).expect(&line);
            let word = word.split(' ').next().unwrap();
            u64::from_str_radix(word, radix).expect(&line)
        };
        let (round, hash) = (number("round=", 10), number("hash=", 16));
        let expected = (1..=round).fold(0xcbf2_9ce4_8422_2325u64, |hash, round| {
            (hash ^ round).wrapping_mul(0x100_0000_01b3)
        });
        assert_eq!(hash, expected, "{line}");
        (round, number("started=", 10), number("messages=", 10))
    }

    /// Asks for something, by a connection for that: one that is silent for seconds is closed.
    pub fn ask(&self, order: Order) {
        let mut control = Connection::to(&self.socket).unwrap();
        control.ask(order, deadline()).unwrap();
    }

    /// Sends it something on its console.
    pub fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
    }

    pub fn save(&self, file: &Path) {
        let output = save(&self.socket, file);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Returns what it said that nobody has read.
    pub fn end(mut self) -> Vec<String> {
        self.input.write_all(b"q").unwrap();
        let ended = self.vm.wait().unwrap();
        let rest: Vec<_> = self.lines.iter().collect();
        assert_eq!(ended.code(), Some(0), "{rest:?}");
        rest
    }
}

fn save(socket: &Path, file: &Path) -> std::process::Output {
    run(command("snapshot").arg(socket).arg(file))
}

pub fn place() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().to_path_buf();
    (place, move |name| path.join(name))
}

/// With walls and without them, by turns: a VM is saved that was restored, again and again.
fn ten_times() {
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "", SMALL, &file("a"));
    let mut last = vm.round().0;
    for time in 0..10 {
        vm.save(&file("saved"));
        assert_eq!(file("saved").metadata().unwrap().mode() & 0o7777, 0o600);
        // The one that was saved goes on as well.
        let next = vm.round().0;
        assert!(next > last);
        let rest = vm.end();
        let told = rest
            .iter()
            .filter(|line| line.starts_with("round="))
            .count() as u64;
        let arguments: &[&str] = if time % 2 == 0 { &[] } else { &["--no-jail"] };
        let verify = ["--verify"];
        vm = Worker::restore(
            &file("saved"),
            &[arguments, &verify].concat(),
            &file(&time.to_string()),
        );
        let resumed = vm.round().0;
        assert!(
            resumed > last && resumed <= next + 10 * (told + 1),
            "{last} {resumed} {next} {rest:?}"
        );
        last = resumed;
    }
    vm.end();
}

/// Some CPUs were started, and halt; others are started when all go on elsewhere.
fn several() {
    let (_place, file) = place();
    let cpus = ["--cpus", "32", "-m", "32M"];
    let mut vm = Worker::boot("saved", "cpus=32", &cpus, &file("a"));
    vm.round();
    for (from, to, then) in [("a", "b", 3), ("b", "c", 20), ("c", "d", 31)] {
        vm.save(&file(from).with_extension("saved"));
        vm.end();
        vm = Worker::restore(&file(from).with_extension("saved"), &[], &file(to));
        while vm.round().1 < then {}
    }
    vm.end();
}

/// Memory on both sides of the gap below 4 GiB.
fn large() {
    let (_place, file) = place();
    let memory = ["-m", "3088M"];
    let mut vm = Worker::boot("saved", "memory=0x100000000", &memory, &file("a"));
    vm.round();
    vm.save(&file("saved"));
    vm.end();
    assert!(file("saved").metadata().unwrap().blocks() * 512 < 32 << 20);
    let mut vm = Worker::restore(&file("saved"), &[], &file("b"));
    for _ in 0..10 {
        vm.round();
    }
    vm.end();
}

fn clones() {
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "", &["-m", "256M"], &file("a"));
    let first = vm.round().0;
    vm.save(&file("saved"));
    let arguments: &[&str] = &[];
    let mut clones = ["b", "c"].map(|name| Worker::restore(&file("saved"), arguments, &file(name)));
    for _ in 0..5 {
        for vm in clones.iter_mut().chain([&mut vm]) {
            assert!(vm.round().0 > first);
        }
    }
    clones.into_iter().chain([vm]).for_each(|vm| drop(vm.end()));
}

/// Of a guest that two go on from, and two from each of those, no two have the same generation, and each vCPU of each
/// takes its interrupt before another instruction.
fn generations() {
    let (_place, file) = place();
    let cpus = ["--cpus", "2", "-m", "32M"];
    let mut parent = Worker::boot("generation", "", &cpus, &file("a"));
    let mut seen = Vec::new();
    let mut expect = |vm: &mut Worker, times: u32| {
        let line = loop {
            // What one had begun to say when it was saved, the other ends.
            match vm.line() {
                line if line.starts_with("generation=") => break line,
                rest => assert!(!rest.contains("panicked"), "{rest}"),
            }
        };
        let (id, rest) = line.split_once(' ').expect(&line);
        let expected = format!("taken={times},{times} acpi={times} late=0,0");
        assert_eq!(rest, expected, "{line}");
        let id = id.strip_prefix("generation=").expect(&line).to_owned();
        assert!(!seen.contains(&id), "{id} in {seen:?}");
        seen.push(id);
    };
    expect(&mut parent, 0);
    for times in 1..=3 {
        let saved = file(&format!("{times}.saved"));
        parent.save(&saved);
        parent.end();
        let clones = [&["--no-jail"][..], &[]].map(|arguments| {
            let socket = file(&format!("{times}.{}", arguments.len()));
            Worker::restore(&saved, arguments, &socket)
        });
        let [mut first, mut second] = clones;
        expect(&mut first, times);
        expect(&mut second, times);
        first.end();
        parent = second;
    }
    parent.end();
}

pub fn image(path: &Path) -> String {
    std::fs::File::create(path)
        .unwrap()
        .set_len(DISK_BYTES)
        .unwrap();
    path.to_str().unwrap().to_owned()
}

fn failure(command: &mut Command) -> String {
    let output = run(command);
    assert!(matches!(output.status.code(), Some(1 | 125)), "{output:?}");
    text(&output.stderr)
}

fn disks() {
    let (_place, file) = place();
    let disk = image(&file("disk"));
    let mut vm = Worker::boot("saved", DISK, &["--disk", &disk], &file("a"));
    vm.round();
    vm.ask(Order::Pause);
    vm.save(&file("saved"));
    let copy = file("copy");
    std::fs::copy(file("disk"), &copy).unwrap();
    vm.ask(Order::Resume);
    vm.round();
    vm.round();
    vm.end();
    let restore = |arguments: &[&str]| {
        let mut restore = command("restore");
        restore.args(arguments).arg(file("saved"));
        restore
    };
    let copy = copy.to_str().unwrap();
    let small = image(&file("small"));
    std::fs::File::options()
        .write(true)
        .open(&small)
        .unwrap()
        .set_len(DISK_BYTES / 2)
        .unwrap();
    for (arguments, reason) in [
        (&["--disk", &disk][..], "has been written to since"),
        (&[], "had 1 disks, and 0 are named"),
        (&["--disk", copy, "--disk", &disk], "2 are named"),
        (&["--disk", &small], "had 8388608 as the size of vda"),
        (&["--disk", &format!("{copy},ro")], "leave `ro` out"),
        (
            &["--disk", &format!("{copy},queues=2")],
            "leave `queues` out",
        ),
        (&["--disk", &format!("{copy},id=a")], "leave `id` out"),
        (&["--disk", copy, "--net", "tap=none"], "0 interfaces"),
        (&["--disk", copy, "--vsock", "nowhere"], "sockets"),
    ] {
        let said = failure(&mut restore(arguments));
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    let mut vm = Worker::restore(&file("saved"), &["--disk", copy], &file("b"));
    vm.round();
    vm.end();
}

fn add_tap(name: &str) {
    let words = [
        "tuntap",
        "add",
        "dev",
        name,
        "mode",
        "tap",
        "vnet_hdr",
        "multi_queue",
    ];
    let added = Command::new("ip").args(words).status().unwrap();
    assert!(added.success());
    let up = ["link", "set", name, "up"];
    assert!(Command::new("ip").args(up).status().unwrap().success());
}

/// Rings that are never empty, in the midst of which it is saved; what a device answers once it answers once.
fn load() {
    if let Err(reason) = enter_own_network() {
        return println!("SKIPPED: no network namespace: {reason}");
    }
    let (_place, file) = place();
    let disk = image(&file("disk"));
    let cmdline = "disks=0xd0002000 mmio=0xd0003000 pairs=2";
    add_tap("saved0");
    let arguments = ["--disk", &disk, "--net", "tap=saved0,queues=2", "--balloon"];
    let mut vm = Worker::boot("virtio_load", cmdline, &arguments, &file("a"));
    assert_eq!(vm.line(), "loaded");
    for time in 0..10 {
        vm.ask(Order::Pause);
        vm.save(&file("saved"));
        // Its tap is free when the VM's process has ended, which is soon after its supervisor.
        let process = vm_process(&vm.vm);
        drop(vm);
        eventually("the VM has ended", || has_ended(process as u32));
        let socket = file(&time.to_string());
        let disk = ["--disk", &disk, "--net", "tap=saved0,queues=2"];
        vm = Worker::restore(&file("saved"), &disk, &socket);
        let work = || {
            let mut control = Connection::to(&socket).ok()?;
            let told = control.ask(Order::Stats, deadline()).ok()?;
            let json = told.iter().find_map(|report| match report {
                kvmlet_control::Report::Stats(json) => Some(json.clone()),
                _ => None,
            })?;
            let stats: kvmlet_spec::Stats = serde_json::from_slice(&json).ok()?;
            let (disk, net) = (&stats.vm.disks[0], &stats.vm.interfaces[0]);
            Some((disk.reads.min(disk.writes), net.transmit.frames))
        };
        eventually("disk and interface go on", || {
            work().is_some_and(|(disk, net)| disk > 100 && net > 100)
        });
        let link = run(Command::new("ip").args(["-d", "link", "show", "saved0"]));
        let link = text(&link.stdout);
        assert!(link.contains("numqueues 2 numdisabled 0"), "{link}");
        // A guest that misses an answer, or gets one twice, panics.
        assert!(vm.vm.try_wait().unwrap().is_none());
    }
}

/// The same, by the host's kernel, and by a thread of the VM's after it, in turn: what one has come to the other goes on from.
fn load_of_the_kernel() {
    if let Some(reason) = no_vhost() {
        return println!("SKIPPED: {reason}");
    }
    if let Err(reason) = enter_own_network() {
        return println!("SKIPPED: no network namespace: {reason}");
    }
    let (_place, file) = place();
    add_tap("saved0");
    let net = |keys: &str| format!("tap=saved0,queues=2{keys}");
    let cmdline = "disks=0xd0002000 mmio=0xd0003000 pairs=2";
    let disk = image(&file("disk"));
    let arguments = ["--disk", &disk, "--net", &net(",vhost")];
    let mut vm = Worker::boot("virtio_load", cmdline, &arguments, &file("a"));
    assert_eq!(vm.line(), "loaded");
    // What the guest sends the tap receives.
    let sent = || {
        let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = all.lines().find(|line| line.trim().starts_with("saved0:"));
        let mut words = line.unwrap().split_whitespace();
        words.nth(2).unwrap().parse::<u64>().unwrap()
    };
    for time in 0..2 {
        vm.ask(Order::Pause);
        let still = sent();
        vm.save(&file("saved"));
        assert_eq!(sent(), still, "it stands still");
        let process = vm_process(&vm.vm);
        drop(vm);
        eventually("the VM has ended", || has_ended(process as u32));
        let socket = file(&time.to_string());
        let keys = if time % 2 == 0 { "" } else { ",vhost" };
        let arguments = ["--disk", &disk, "--net", &net(keys)];
        vm = Worker::restore(&file("saved"), &arguments, &socket);
        eventually("the interface goes on", || sent() > still + 1000);
        assert!(vm.vm.try_wait().unwrap().is_none());
    }
}

fn beside_another() {
    let (_place, file) = place();
    let mut vm = Worker::boot("orders", "", &["-m", "256M"], &file("a"));
    assert_eq!(vm.line(), "ready");
    vm.input.write_all(b"t").unwrap();
    assert!(vm.line().starts_with("touched="));
    // The first does not read what it is told.
    let mut first = Connection::to(&vm.socket).unwrap();
    let saving = first.save(deadline()).unwrap();
    let said = failure(command("snapshot").arg(&vm.socket).arg(file("saved")));
    assert!(said.contains("the VM is being saved"), "{said}");
    assert!(said.contains("help: try again when it is"), "{said}");
    assert!(!file("saved").exists());
    // Once it has given up, another may.
    drop(saving);
    drop(first);
    eventually("it is saved", || {
        let mut saving = command("snapshot");
        let saving = saving.arg(&vm.socket).arg(file("saved")).output().unwrap();
        let said = String::from_utf8_lossy(&saving.stderr).into_owned();
        assert_eq!(
            saving.status.success(),
            said.contains("stood still for"),
            "{said}"
        );
        saving.status.success()
    });
    vm.end();
}

/// Memory that nobody has written to is looked at, and not told: the end of its reader has to be seen all the same.
fn unread() {
    let (_place, file) = place();
    let mut vm = Worker::boot("orders", "", &["-m", "1G"], &file("a"));
    assert_eq!(vm.line(), "ready");
    let begun = Instant::now();
    vm.save(&file("saved"));
    let whole = begun.elapsed();
    let mut connection = Connection::to(&vm.socket).unwrap();
    let saving = connection.save(deadline()).unwrap();
    // All that its guest has written to was told, and the rest is looked at.
    let pieces = UnixStream::from(saving.pieces);
    pieces.set_read_timeout(Some(whole / 8)).unwrap();
    while (&pieces).read(&mut [0; 65536]).is_ok() {}
    drop(pieces);
    drop(connection);
    let begun = Instant::now();
    let mut taken = begun.elapsed();
    eventually("another may save it", || {
        taken = begun.elapsed();
        save(&vm.socket, &file("again")).status.success()
    });
    println!("{taken:?} of {whole:?}");
    assert!(taken < whole / 2, "{taken:?} of {whole:?}");
    vm.end();
}

/// Of one that is killed, and one whose disk is full, nothing is left, and the VM runs on.
fn given_up() {
    let (_place, file) = place();
    let mut vm = Worker::boot("orders", "", &["-m", "256M"], &file("a"));
    assert_eq!(vm.line(), "ready");
    let goes_on = |vm: &mut Worker| {
        vm.input.write_all(b"t").unwrap();
        assert!(vm.line().starts_with("touched="));
    };
    goes_on(&mut vm);
    std::fs::create_dir(file("place")).unwrap();
    let saved = file("place").join("saved");
    let nothing_is_left = || {
        let left: Vec<_> = std::fs::read_dir(file("place")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    };
    for wait_ms in [0, 20, 60, 120] {
        let mut saving = command("snapshot");
        let mut saving = saving.arg(&vm.socket).arg(&saved).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        let _ = saving.kill();
        let whole = saving.wait().unwrap().success();
        if whole {
            std::fs::remove_file(&saved).unwrap();
        }
        nothing_is_left();
        goes_on(&mut vm);
    }
    // No file may be longer than a mebibyte: as good as a disk that is full.
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$@\"";
    limited.args(["-c", script, "sh", env!("CARGO_BIN_EXE_kvmlet"), "snapshot"]);
    let said = failure(limited.arg(&vm.socket).arg(&saved).stdin(Stdio::null()));
    assert!(said.contains("cannot write"), "{said}");
    nothing_is_left();
    goes_on(&mut vm);
    // Nor is one that cannot have that name.
    std::fs::create_dir(&saved).unwrap();
    failure(command("snapshot").arg(&vm.socket).arg(&saved));
    std::fs::remove_dir(&saved).unwrap();
    nothing_is_left();
    let nobody = save(&file("nobody"), &saved);
    assert!(!nobody.status.success());
    vm.save(&saved);
    let mut clone = Worker::restore(&saved, &[], &file("b"));
    goes_on(&mut clone);
    clone.end();
    vm.end();
}

/// Cut short, changed, and what was never one.
fn refused() {
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "", SMALL, &file("a"));
    vm.round();
    let saved = file("saved");
    vm.save(&saved);
    vm.end();
    let length = saved.metadata().unwrap().len();
    let lie = |change: &dyn Fn(&std::fs::File)| {
        let lie = file("lie");
        let _ = std::fs::remove_file(&lie);
        let copied = run(Command::new("cp")
            .arg("--sparse=always")
            .args([&saved, &lie]));
        assert!(copied.status.success());
        let options = std::fs::File::options().read(true).write(true).open(&lie);
        change(&options.unwrap());
        failure(command("restore").arg("--verify").arg(&lie))
    };
    let flip = |place: u64| {
        move |file: &std::fs::File| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 0x40], place).unwrap();
        }
    };
    for place in [20, 100, 5000, 8000] {
        let said = lie(&flip(place));
        assert!(said.contains("changed since"), "{place}: {said}");
    }
    assert!(lie(&flip(0)).contains("no snapshot"));
    assert!(lie(&flip(9)).contains("version"));
    assert!(lie(&flip((16 << 20) + 0x10_0000)).contains("guest memory in it has changed"));
    assert!(lie(&flip(length - 1)).contains("mark at its end"));
    for shorter in [0, 7, 1000, 16 << 20, length - 1] {
        let said = lie(&|file| file.set_len(shorter).unwrap());
        assert!(said.contains("cut short"), "{shorter}: {said}");
    }
    for other in [program("spin"), "/dev/null".into(), file(""), file("none")] {
        let said = failure(command("restore").arg(&other));
        assert!(said.contains("cannot use snapshot"), "{said}");
    }
}

/// What is said of a lie, and how it is told.
type Lie<'a> = (&'static str, &'a dyn Fn(&mut VmState));

/// Says of a machine what its file says, with checksums that are right, and what no VM of ours could have been.
fn lies() {
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "cpus=2", &["-m", "32M", "--cpus", "2"], &file("a"));
    vm.round();
    let saved = file("saved");
    vm.save(&saved);
    vm.end();
    let bytes = std::fs::read(&saved).unwrap();
    let restored = |change: &dyn Fn(&mut VmState)| {
        let mut state = decode(&bytes).unwrap();
        change(&mut state);
        std::fs::write(file("lie"), &bytes).unwrap();
        let lie = std::fs::File::options().write(true).open(file("lie"));
        lie.unwrap().write_all_at(&encode(&state), 0).unwrap();
        failure(command("restore").arg(file("lie")))
    };
    let refused: [Lie; 9] = [
        // Virtualization of its own.
        ("EFER 0x1000", &|state| state.vcpus[1].sregs.efer |= 1 << 12),
        ("no guest can be in", &|state| {
            state.vcpus[0].sregs.efer |= 1 << 40
        }),
        ("register 0xc0000080", &|state| {
            let (index, value) = (0xc000_0080, 0x1d01);
            state.vcpus[1].msrs.push(Msr { index, value });
        }),
        ("guests of its own", &|state| state.machine.nested = true),
        ("lacks what the guest has found", &|state| {
            let leaf = |leaf: &&mut Leaf| leaf.function == 7 && leaf.index == 0;
            state.vcpus[1].cpuid.iter_mut().find(leaf).unwrap().edx = u32::MAX;
        }),
        ("devices", &|state| state.devices.clear()),
        ("registers are another kind's", &|state| state.pci = Some(0)),
        ("registers are another kind's", &|state| {
            state.devices[0].function = Some(Default::default());
        }),
        ("set whether a vCPU runs", &|state| {
            state.vcpus[1].mp_state = 77
        }),
    ];
    for (reason, change) in refused {
        let said = restored(change);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let fifo = file("fifo");
    assert!(run(Command::new("mkfifo").arg(&fifo)).status.success());
    let said = failure(command("restore").arg(&fifo));
    assert!(said.contains("no regular file"), "{said}");
    // By a link as by its name.
    std::os::unix::fs::symlink(&saved, file("link")).unwrap();
    let mut vm = Worker::restore(&file("link"), &[], &file("b"));
    vm.round();
    vm.end();
}

fn paused() {
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "", SMALL, &file("a"));
    vm.round();
    vm.ask(Order::Pause);
    while vm.lines.recv_timeout(Duration::from_millis(200)).is_ok() {}
    vm.save(&file("first"));
    vm.save(&file("second"));
    assert!(vm.lines.recv_timeout(Duration::from_millis(200)).is_err());
    // Nothing has changed meanwhile but clocks.
    let memory = |name: &str| {
        let mut bytes = Vec::new();
        let mut file = std::fs::File::open(file(name)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes.split_off(16 << 20)
    };
    assert!(memory("first") == memory("second"));
    vm.ask(Order::Resume);
    vm.round();
    vm.end();
}

/// Some guests write to little, and sleep for a moment; others write more than is told, and sleep longer; what goes on from each
/// file finds each page as it had left it, and so does who was saved.
fn one_moment() {
    let (_place, file) = place();
    let watched = kvmlet_sys::written::Written::new().is_ok();
    for (name, window, spins) in [("few", 100, 2000), ("many", 9000, 0)] {
        let cmdline = format!("pages=20000 window={window} spins={spins}");
        let socket = file(name);
        let mut vm = Worker::boot("memory_writer", &cmdline, &["-m", "96M"], &socket);
        let counts = |vm: &mut Worker, times: usize| {
            for _ in 0..times {
                let line = vm.line();
                assert!(!line.contains("failed"), "{line}");
            }
        };
        counts(&mut vm, 12);
        for time in ["first", "second"] {
            let begun = Instant::now();
            let pause = save_with_pause(&socket, &file(time));
            let took = begun.elapsed();
            println!("{name}, {time}: {pause:?} of {took:?}");
            if name == "few" && watched {
                assert!(pause < took / 2, "{pause:?} of {took:?}");
            }
            let mut clone = Worker::restore(&file(time), &["--verify"], &file("clone"));
            // All pages that are written to are looked at on the way.
            counts(&mut clone, 12);
            clone.end();
        }
        counts(&mut vm, 12);
        vm.end();
    }
}

/// Its guest does nothing that is not in the file, unless whoever has that lets go of it.
fn held() {
    let (_place, file) = place();
    let socket = file("a");
    let mut vm = Worker::boot("saved", "", SMALL, &socket);
    vm.round();
    let refused = |order| {
        let mut control = Connection::to(&socket).unwrap();
        control.ask(order, deadline()).unwrap_err().to_string()
    };
    let is_still = |vm: &mut Worker| {
        while vm.lines.recv_timeout(Duration::from_millis(200)).is_ok() {}
        assert!(vm.lines.recv_timeout(Duration::from_millis(200)).is_err());
    };
    assert!(refused(Order::Suspended).contains("does not stand still"));
    // Whoever has it saved is gone: it goes on.
    let (control, saving) = suspend(&socket, &file("given_up"));
    is_still(&mut vm);
    assert!(refused(Order::Pause).contains("saved"));
    drop((control, saving));
    vm.round();
    // It is kept; and goes on all the same if that is wanted.
    let (mut control, saving) = suspend(&socket, &file("back"));
    control.ask(Order::Suspended, deadline()).unwrap();
    // Whoever asks after one who was killed hears that, too.
    let mut another = Connection::to(&socket).unwrap();
    another.ask(Order::Suspended, deadline()).unwrap();
    drop((control, saving));
    is_still(&mut vm);
    vm.ask(Order::Resume);
    let (before, _) = vm.round();
    // An end that is asked for politely is one at once.
    let (mut control, saving) = suspend(&socket, &file("kept"));
    control.ask(Order::Suspended, deadline()).unwrap();
    let patience_ms = None;
    control
        .ask(Order::Stop { patience_ms }, deadline())
        .unwrap();
    drop((control, saving));
    assert!(!vm.vm.wait().unwrap().success());
    let told: Vec<String> = vm
        .lines
        .iter()
        .filter(|line| line.contains("hash="))
        .collect();
    let round = |line: &String| -> u64 {
        let word = line["round=".len()..].split(' ').next().unwrap();
        word.parse().unwrap()
    };
    let last = told.last().map_or(before, round);
    let mut next = Worker::restore(&file("kept"), &["--verify"], &file("b"));
    let (first, _) = next.round();
    // Every tenth is told, and one of which the first had told the beginning is none of these.
    assert!([last + 10, last + 20].contains(&first), "{last}, {first}");
    next.end();
    for name in ["given_up", "back"] {
        let mut older = Worker::restore(&file(name), &[], &file("b"));
        older.round();
        older.end();
    }
}

/// Has a VM saved that stands still from then on, as long as what is returned is open.
fn suspend(socket: &Path, path: &Path) -> (Connection, kvmlet_control::Saving) {
    let mut vm = Connection::to(socket).unwrap();
    let saving = vm.suspend(deadline()).unwrap();
    let options = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let pieces = std::fs::File::from(saving.pieces.try_clone().unwrap());
    let file = options.unwrap();
    Sink::new(&file, saving.most_bytes).fill(pieces).unwrap();
    vm.saved(saving.number, deadline()).unwrap();
    (vm, saving)
}

/// Saves a VM; returns how long it says that it stood still.
fn save_with_pause(socket: &Path, path: &Path) -> Duration {
    let mut vm = Connection::to(socket).unwrap();
    let saving = vm.save(deadline()).unwrap();
    let options = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    let file = options.unwrap();
    Sink::new(&file, saving.most_bytes)
        .fill(std::fs::File::from(saving.pieces))
        .unwrap();
    vm.saved(saving.number, deadline()).unwrap().unwrap()
}

/// Between `sti` and `hlt`, with its only interrupt pending: that is taken once it halts. Before, it would never wake.
fn about_to_halt() {
    /// A vCPU runs, or halts (KVM_GET_MP_STATE); interrupts are held off by `sti` (KVM_GET_VCPU_EVENTS).
    const RUNS: u32 = 0;
    const HALTS: u32 = 3;
    const SHADOW: (u32, u8) = (4, 2);
    /// In its local APIC: requested interrupts, and what its timer counts from.
    const TIMER: usize = 0x31;
    const REQUESTED: usize = 0x200 + TIMER / 32 * 0x10 + TIMER % 32 / 8;
    const COUNTS: std::ops::Range<usize> = 0x380..0x394;
    let (_place, file) = place();
    let mut vm = Worker::boot("saved", "timer=once", SMALL, &file("a"));
    vm.round();
    let mut bytes;
    let mut state = loop {
        vm.save(&file("saved"));
        bytes = std::fs::read(file("saved")).unwrap();
        let state = decode(&bytes).unwrap();
        if state.vcpus[0].mp_state == HALTS {
            break state;
        }
    };
    vm.end();
    let vcpu = &mut state.vcpus[0];
    let halt = (16 << 20) + vcpu.regs.rip as usize - 1;
    assert_eq!(bytes[halt - 1..halt + 1], [0xfb, 0xf4]);
    vcpu.mp_state = RUNS;
    vcpu.regs.rip -= 1;
    vcpu.events.flags |= SHADOW.0;
    vcpu.events.interrupt.shadow = SHADOW.1;
    vcpu.lapic.regs[REQUESTED] |= 1 << (TIMER % 8);
    vcpu.lapic.regs[COUNTS].fill(0);
    let mut again = std::fs::File::options()
        .write(true)
        .open(file("saved"))
        .unwrap();
    again.write_all_at(&encode(&state), 0).unwrap();
    again.flush().unwrap();
    let mut vm = Worker::restore(&file("saved"), &[], &file("b"));
    vm.round();
    vm.end();
    // Nor is it lost where it is saved once more before it has run.
    let vm = Worker::restore(&file("saved"), &["--paused"], &file("c"));
    eventually("it can be saved", || {
        save(&file("c"), &file("again")).status.success()
    });
    drop(vm);
    let mut vm = Worker::restore(&file("again"), &[], &file("d"));
    vm.round();
    vm.end();
}
