//! That the lists of system calls have no entry that nothing needs: VMs do all there is to do, and are watched.

use crate::cli::kvmlet;
use crate::harness::control::with_control;
use crate::harness::{Test, deadline, patience::eventually};
use crate::jail::{stop_and_change, tasks, thread};
use crate::packets::{enter_own_network, frame, packet_socket, tap};
use crate::virtio::{BLK, image};
use crate::vsock;
use crate::watch::{Call, SUPERVISOR, Seen, Watch, Watched};
use kvmlet_control::{Connection, Order};
use kvmlet_host::walls::strangers::{rules as strangers_rules, rules_of_relays};
use kvmlet_sys::kvm::Execution;
use kvmlet_sys::seccomp::{Check, Rule};
use kvmlet_vmm::system_calls::{own_rules, rules, shared_rules};
use kvmlet_vmm::thread::ThreadKind;
use std::fs::read_to_string;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("each_entry_of_each_list_is_used", minimal_lists)];

/// The process of a VM whose threads have all been sealed.
fn running_vm(child: &Child) -> i32 {
    let pid = child.id();
    let path = format!("/proc/{pid}/task/{pid}/children");
    // The first; the other one serves strangers.
    let vm = || {
        read_to_string(&path)
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let sealed = |vm: i32| {
        let tasks = tasks(vm);
        tasks.len() > 1 && tasks.iter().all(|task| is_sealed(task))
    };
    let deadline = Instant::now() + deadline();
    while !vm().is_some_and(sealed) {
        let seen = || {
            vm().map_or(Vec::new(), |vm| {
                tasks(vm).iter().map(|task| told(task)).collect()
            })
        };
        assert!(
            Instant::now() < deadline,
            "its VM does not run: {:#?}",
            seen()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    vm().unwrap()
}

/// What a thread does, in the words of its kernel.
fn told(task: &str) -> String {
    let file = |name: &str| read_to_string(format!("{task}/{name}")).unwrap_or_default();
    let status = file("status");
    let lines = ["Name:", "State:", "Seccomp"]
        .map(|key| status.lines().filter(move |line| line.starts_with(key)));
    let words: Vec<&str> = lines.into_iter().flatten().collect();
    format!(
        "{} in {} by {}",
        words.join(" "),
        file("wchan"),
        file("syscall").trim()
    )
}

/// Under its own filter, and the one by which it is watched.
fn is_sealed(task: &str) -> bool {
    let status = read_to_string(format!("{task}/status")).unwrap_or_default();
    status.starts_with("Name:\tkvm-") || status.contains("Seccomp_filters:\t2")
}

/// Runs a VM and returns what its threads call once they are sealed.
fn watch(command: Command, exit_code: i32, act: impl FnOnce(&mut Child)) -> Seen {
    watch_calls(Watch::All, command, exit_code, act)
}

/// As [`watch`], of these calls.
fn watch_calls(
    calls: Watch,
    mut command: Command,
    exit_code: i32,
    act: impl FnOnce(&mut Child),
) -> Seen {
    let mut output = tempfile::tempfile().unwrap();
    command.stdout(output.try_clone().unwrap());
    command.stderr(output.try_clone().unwrap());
    let mut watched = Watched::spawn(command, calls);
    let acted = catch_unwind(AssertUnwindSafe(|| act(&mut watched.child)));
    if acted.is_err() {
        let _ = watched.child.kill();
    }
    let status = watched.child.wait().unwrap();
    let mut said = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut said).unwrap();
    acted.unwrap_or_else(|_| panic!("it was given up, with {status}, and had said: {said}"));
    assert_eq!(status.code(), Some(exit_code), "{said}");
    watched.seen()
}

fn with(name: &str, arguments: &[&str]) -> Command {
    let mut command = kvmlet(name);
    command.args(arguments);
    command
}

/// Each kind of thread by the names that its threads have.
fn kind(thread: &str) -> ThreadKind {
    match thread {
        "kvmlet" => ThreadKind::EventLoop,
        "rng" => ThreadKind::Rng,
        "balloon" => ThreadKind::Balloon,
        "vsock" => ThreadKind::Vsock,
        _ if thread.starts_with("vcpu") => ThreadKind::Vcpu,
        _ if thread.starts_with("vd") => ThreadKind::Block,
        _ if thread.starts_with("eth") => ThreadKind::Net,
        other => panic!("a thread that nobody knows: {other}"),
    }
}

fn allows(rule: &Rule, call: &Call) -> bool {
    let argument = |number: u8| call.arguments[usize::from(number)];
    rule.call == call.number
        && match rule.check {
            Check::None => true,
            Check::Equal(number, value) => argument(number) == value,
            Check::Without(number, bits) => argument(number) & bits == 0,
            Check::With(number, bits) => argument(number) & bits != 0,
            // It is the first of its PID namespace.
            Check::OwnProcess(number) => argument(number) == 1,
        }
}

/// What VMs call that do all that there is to do. They run confined: each call is on a list, or the VM ends with
/// 159. So what remains to be seen is that none on a list is unused: what only one kind of thread may call, by
/// that kind, and what several may, by one of them.
fn minimal_lists() {
    let scenarios = [
        endings, failures, alarms, consoles, balloon, disks, interfaces, sockets, saved,
    ];
    let threads = scenarios.map(std::thread::spawn);
    let runs = threads.map(|thread| thread.join().unwrap());
    let mut seen: Vec<(ThreadKind, Call)> = runs.into_iter().flat_map(listed).collect();
    // Whose CPU others want looks for no request before it sleeps, and gives no turn away while it looks. Nor does one
    // whose every call goes through a watcher, but for luck.
    let deadline = Instant::now() + deadline();
    while unused(&seen).any(|rule| rule.call == libc::SYS_sched_yield) && Instant::now() < deadline
    {
        seen.extend(listed(looking()));
    }
    let unused: Vec<&Rule> = unused(&seen).collect();
    assert!(unused.is_empty(), "entries that nothing needs: {unused:#?}");
}

/// What threads have called that have a list, each by its kind. None has called what is not on its list.
fn listed(seen: Vec<Seen>) -> Vec<(ThreadKind, Call)> {
    let mut calls_of_kinds = Vec::new();
    for (name, calls) in seen.into_iter().flatten() {
        if name == SUPERVISOR || name == "vsock-host" {
            // It has a list of what is refused, and may call all else.
            continue;
        }
        // Of the supervisor: what is not on their lists is refused, and should not be asked for.
        let list: Vec<&Rule> = match &*name {
            "net-proxy" => strangers_rules().collect(),
            "net-relay" => rules_of_relays().collect(),
            _ => Vec::new(),
        };
        let kind = list.is_empty().then(|| kind(&name));
        for call in calls {
            let allowed = match kind {
                Some(kind) => rules(kind).any(|rule| allows(rule, &call)),
                None => list.iter().any(|rule| allows(rule, &call)),
            };
            assert!(allowed, "{name}: {call:?}");
            calls_of_kinds.extend(kind.map(|kind| (kind, call)));
        }
    }
    calls_of_kinds
}

/// The entries that none of these calls has needed.
fn unused(seen: &[(ThreadKind, Call)]) -> impl Iterator<Item = &'static Rule> {
    let by_it = |kind, rule: &Rule| {
        seen.iter()
            .any(|(by, call)| *by == kind && allows(rule, call))
    };
    let by_any = |rule: &Rule| seen.iter().any(|(_, call)| allows(rule, call));
    // None of these disks is a block device, which alone is asked so for its size when that has changed.
    let is_elsewhere = |rule: &Rule| match rule.check {
        Check::Equal(1, BLKGETSIZE64) => true,
        // Nor does a guest save its registers that way where it can do so itself.
        Check::Equal(1, KVM_SET_XSAVE) => !interprets(),
        _ => false,
    };
    // No interface here is the kernel's own to serve: what that takes is seen on the second host, by VMs in their jail.
    let kinds = (ThreadKind::ALL.into_iter()).filter(|kind| *kind != ThreadKind::Vhost);
    let unused = kinds.flat_map(|kind| {
        let own = own_rules(kind).filter(move |rule| !by_it(kind, rule) && !is_elsewhere(rule));
        own.chain(shared_rules(kind).filter(|rule| !by_any(rule)))
    });
    unused.collect::<Vec<_>>().into_iter()
}

/// Does KVM interpret guest kernels here?
fn interprets() -> bool {
    Execution::detect().unwrap() == Execution::Interpreted
}

/// linux/kvm.h
const KVM_SET_XSAVE: u32 = 0x5000_aea5;
/// linux/fs.h
const BLKGETSIZE64: u32 = 0x8008_1272;

fn endings() -> Vec<Seen> {
    let two = ["--cpus", "2"];
    let mut seen: Vec<Seen> = [
        ("power_off", 0),
        ("reset", 129),
        ("panic", 134),
        ("triple_fault", 139),
    ]
    .map(|(name, code)| watch(with(name, &two), code, |_| ()))
    .into();
    seen.push(watch(with("smp", &two), 0, |_| ()));
    seen.push(watch(with("mmio_nowhere", &[]), 0, |_| ()));
    seen
}

/// The end that a forbidden call is.
fn alarms() -> Vec<Seen> {
    let image = image();
    let arguments = ["--disk", image.path().to_str().unwrap()];
    // A take-over came to nothing once in many runs, and is tried again. That hides no hole: a call that was made and
    // not stopped would be seen.
    const PAUSE: Duration = Duration::from_secs(1);
    let alarm = |name| {
        watch(with("spin", &arguments), 159, |child| {
            let thread = thread(running_vm(child), name);
            let mut next = Instant::now();
            eventually("the VM ends", || {
                if next <= Instant::now() && stop_and_change(thread, libc::SYS_openat) {
                    next = Instant::now() + PAUSE;
                }
                child.try_wait().unwrap().is_some()
            });
        })
    };
    ["kvmlet", "rng", "vda.0"].map(alarm).into()
}

fn failures() -> Vec<Seen> {
    let mut seen = vec![watch(with("jump_nowhere", &[]), 125, |_| ())];
    if interprets() {
        seen.push(watch(with("bad_instruction", &[]), 125, |_| ()));
        seen.push(watch(with("fpu_ports", &[]), 0, |_| ()));
    }
    seen
}

/// Input, interrupts, statistics, and ends by a signal.
fn consoles() -> Vec<Seen> {
    let mut seen: Vec<Seen> = ["serial_echo", "serial_irq"]
        .map(|name| {
            let mut command = kvmlet(name);
            command.stdin(Stdio::piped());
            watch(command, 42, |child| {
                let text = "abc".repeat(1000) + "q";
                let mut input = child.stdin.take().unwrap();
                input.write_all(text.as_bytes()).unwrap();
            })
        })
        .into();
    seen.push(watch(
        with("power_button", &["--cmdline", "code=7"]),
        7,
        |child| {
            // It hears the button once its driver has enabled it; the signal comes later than that.
            running_vm(child);
            std::thread::sleep(Duration::from_secs(2));
            // SAFETY: the child has not been waited for, so the number is its own.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        },
    ));
    let directory = tempfile::tempdir().unwrap();
    let stats = directory.path().join("stats.json");
    let arguments = ["--cpus", "2", "--stats", stats.to_str().unwrap()];
    seen.push(watch(with("spin", &arguments), 143, |child| {
        // SAFETY: the child has not been waited for, so the number is its own.
        let signal = |signal| unsafe { libc::kill(child.id() as i32, signal) };
        // Stopped and continued, vCPUs tell their guest.
        let vm = running_vm(child);
        for signal in [libc::SIGSTOP, libc::SIGCONT] {
            // SAFETY: the child, which holds the VM's process, has not been waited for.
            unsafe { libc::kill(vm, signal) };
            std::thread::sleep(Duration::from_millis(100));
        }
        signal(libc::SIGUSR1);
        eventually("statistics are written", || stats.exists());
        signal(libc::SIGTERM);
    }));
    seen
}

fn balloon() -> Vec<Seen> {
    let cmdline = "mmio=0xd0002000 pages=8192";
    let arguments = [
        "--memory",
        "64M",
        "--balloon",
        "size=8M",
        "--cmdline",
        cmdline,
    ];
    let mut command = with("virtio_balloon", &arguments);
    command.stdin(Stdio::piped());
    // Touch all, give back what is free, end.
    vec![watch(command, 0, |child| {
        child.stdin.take().unwrap().write_all(b"trq").unwrap();
    })]
}

fn disks() -> Vec<Seen> {
    let image = image();
    let path = image.path().to_str().unwrap();
    let disk = |keys: &str| format!("{path}{keys}");
    // More than it gets at once.
    let rng = "mmio=0xd0001000 more=64";
    let mut seen = vec![watch(with("virtio_rng", &["--cmdline", rng]), 0, |_| ())];
    for keys in [
        "",
        ",io=sync",
        ",io=sync,cache=writethrough",
        ",iops=20,iops-burst=1",
    ] {
        let arguments = ["--cmdline", BLK, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_blk", &arguments), 0, |_| ()));
    }
    for keys in ["", ",io=sync"] {
        let cmdline = format!("{BLK} first=2048 sectors=2048");
        let arguments = ["--cmdline", &cmdline, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_blk_free", &arguments), 0, |_| ()));
        let cmdline = "devices=0xd0001000,0xd0002000";
        let arguments = ["--cmdline", cmdline, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_malformed", &arguments), 0, |_| ()));
    }
    seen
}

fn interfaces() -> Vec<Seen> {
    if let Err(reason) = enter_own_network() {
        panic!("the list for interfaces cannot be tested: {reason}");
    }
    let mut seen = Vec::new();
    let arguments = ["--cmdline", BLK, "--net", "queues=2"];
    seen.push(watch(with("virtio_net_control", &arguments), 0, |_| ()));
    let arguments = ["--cmdline", "devices=0xd0002000", "--net"];
    seen.push(watch(with("virtio_malformed", &arguments), 0, |_| ()));
    let limits = "rx-packets=50,tx-packets=50";
    let arguments = ["--cmdline", BLK, "--net", limits];
    seen.push(watch(with("virtio_net", &arguments), 0, |_| send_frames()));
    seen
}

/// A VM whose disk and network are never left alone.
fn load(disk: &str) -> Command {
    let cmdline = "disks=0xd0002000 mmio=0xd0003000 pairs=2";
    let arguments = ["--cmdline", cmdline, "--disk", disk, "--net", "queues=2"];
    with("virtio_load", &arguments)
}

/// SIGTERM for a VM.
fn end(child: &Child) {
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
}

/// A VM whose threads look for requests before they sleep: it is watched for no other call, and so they are soon enough
/// for the next.
fn looking() -> Vec<Seen> {
    if let Err(reason) = enter_own_network() {
        panic!("the lists for what is looked for cannot be tested: {reason}");
    }
    let image = image();
    let command = load(image.path().to_str().unwrap());
    let yields = Watch::Only(libc::SYS_sched_yield);
    vec![watch_calls(yields, command, 143, |child| {
        running_vm(child);
        std::thread::sleep(Duration::from_secs(1));
        end(child);
    })]
}

/// A VM with all kinds of devices is saved, and goes on.
fn saved() -> Vec<Seen> {
    if let Err(reason) = enter_own_network() {
        panic!("the lists for what is saved cannot be tested: {reason}");
    }
    let image = image();
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let socket = file("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let disk = image.path().to_str().unwrap();
    let mut command = load(disk);
    with_control(&mut command, listener.into());
    let program = || Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    let mut seen = vec![watch(command, 143, |child| {
        running_vm(child);
        std::thread::sleep(Duration::from_secs(2));
        let save = |name: &str| {
            let mut save = program();
            save.arg("snapshot").arg(&socket).arg(file(name));
            assert!(save.status().unwrap().success());
        };
        // While it runs, and as it stands still.
        save("before");
        let mut control = Connection::to(&socket).unwrap();
        control.ask(Order::Pause, deadline()).unwrap();
        save("saved");
        std::fs::copy(disk, file("disk")).unwrap();
        end(child);
    })];
    let mut restore = program();
    restore.args(["restore", "--net", "queues=2", "--disk"]);
    restore
        .arg(file("disk"))
        .arg(file("saved"))
        .stdin(Stdio::null());
    seen.push(watch(restore, 143, |child| {
        running_vm(child);
        std::thread::sleep(Duration::from_secs(2));
        end(child);
    }));
    seen
}

/// Connections from either side, with data, a direction that ends, a reset and a refusal.
fn sockets() -> Vec<Seen> {
    let (_place, path) = vsock::place();
    let service = UnixListener::bind(format!("{}_1024", path.display())).unwrap();
    let cmdline = format!("{} connect=1024", vsock::CMDLINE);
    let arguments = ["--cmdline", &cmdline, "--vsock", path.to_str().unwrap()];
    let command = with("virtio_vsock", &arguments);
    let talk = watch(command, 0, |_| {
        let mut program = vsock::accept(&service);
        let mut hello = [0; 5];
        program.read_exact(&mut hello).unwrap();
        program.write_all(&[1; 100_000]).unwrap();
        program.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = program.read_to_end(&mut rest);
        vsock::echo(&path).write_all(b"quit").unwrap();
    });
    let cmdline = format!("{} bytes=100000", vsock::CMDLINE);
    let arguments = ["--cmdline", &cmdline, "--vsock", path.to_str().unwrap()];
    let end = watch(with("virtio_vsock_bench", &arguments), 0, |_| {
        vsock::accept(&service)
            .read_to_end(&mut Vec::new())
            .unwrap();
    });
    vec![talk, end]
}

/// Sends some frames to the guest, which wait for it in the tap, and the one that ends it.
fn send_frames() {
    eventually("there is a tap", || {
        let interfaces = read_to_string("/proc/thread-self/net/dev").unwrap();
        interfaces.contains("kvmlet")
    });
    let mut socket = packet_socket(&tap());
    let mut send = |payload: &[u8]| {
        let frame = frame(payload);
        let deadline = Instant::now() + deadline();
        while let Err(error) = socket.write_all(&frame) {
            // It is not up yet.
            assert!(Instant::now() < deadline, "{error}");
        }
    };
    (0..20).for_each(|number| send(&[number; 100]));
    send(b"quit, and fill the frame up to the least size that it has");
}
