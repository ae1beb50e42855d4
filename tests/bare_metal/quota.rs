//! VMs held to their share, through the command line, in cgroups and a ledger of the test's own.

use crate::cli::{Running, kill, vm_process, vm_process_if_any};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Test, cpu_time, eventually};
use crate::packets::enter_own_network;
use kvmlet::host::ledger::Host;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "half_a_cpu_is_half_a_cpu_and_others_take_the_rest",
        half_a_cpu,
    ),
    ("vcpus_stay_on_their_cpus", pinned),
    ("devices_run_beside_the_share_of_vcpus", beside),
    (
        "a_guest_that_touches_all_memory_stays_within_its_limit",
        touches_all,
    ),
    (
        "a_guest_that_writes_to_its_disk_stays_within_its_limit",
        writes_fast,
    ),
    ("a_vm_beyond_its_memory_limit_is_killed_alone", killed_alone),
    ("a_quota_at_a_terminal_is_held_too", at_a_terminal),
    ("what_cannot_be_held_is_refused_or_told", best_effort),
    (
        "of_many_launches_exactly_as_many_get_a_share_as_there_are",
        launches_race,
    ),
    (
        "vms_killed_at_random_leave_nothing_behind",
        killed_at_random,
    ),
];

/// As any process has.
const USUAL_WEIGHT: u64 = 100;
/// The most: who measures shares must not be held up by what else runs on this machine.
const FULL_WEIGHT: u64 = 10_000;

fn sandbox(weight: u64) -> Option<Sandbox> {
    Sandbox::new(weight)
        .map_err(|reason| println!("SKIPPED: {reason}"))
        .ok()
}

fn host_cpus() -> Vec<u16> {
    Host::here().unwrap().cpus.iter().collect()
}

/// A VM, and both ends of its console.
struct Vm {
    running: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Vm {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::spawn(command);
        Self {
            input: running.stdin.take().unwrap(),
            output: BufReader::new(running.stdout.take().unwrap()),
            running,
        }
    }

    /// The next line; empty when the VM has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().into()
    }

    fn bytes(&mut self, count: usize) {
        self.output.read_exact(&mut vec![0; count]).unwrap();
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// The threads of the VM's process, by name and number.
    fn threads(&self) -> Vec<(String, PathBuf)> {
        let tasks = format!("/proc/{}/task", vm_process(&self.running));
        let paths = fs::read_dir(tasks)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let name = |path: &Path| {
            fs::read_to_string(path.join("comm"))
                .unwrap()
                .trim()
                .to_string()
        };
        paths.map(|path| (name(&path), path)).collect()
    }

    /// What the VM's process has used.
    fn cpu_time(&self) -> Duration {
        cpu_time(vm_process(&self.running))
    }
}

/// Which cgroup a process or thread is in, by controller.
fn cgroups(process: impl AsRef<Path>) -> BTreeMap<String, String> {
    let text = fs::read_to_string(process.as_ref().join("cgroup")).unwrap();
    let parts = text.lines().map(|line| line.splitn(3, ':').skip(1));
    parts
        .map(|mut parts| (parts.next().unwrap().into(), parts.next().unwrap().into()))
        .collect()
}

fn allowed_cpus(thread: &Path) -> String {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap().trim().into()
}

/// The CPU on which a thread ran last (field 39 in proc_pid_stat(5); the second may have blanks).
fn last_cpu(thread: &Path) -> String {
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(36).unwrap().into()
}

/// One CPU for two VMs that both take all they can get.
fn half_a_cpu() {
    let Some(sandbox) = sandbox(FULL_WEIGHT) else {
        return;
    };
    let cpu = host_cpus()[0].to_string();
    let start = |arguments: &[&str]| {
        let mut vm = Vm::start(
            sandbox
                .boot("spin")
                .args(["--cpuset", &cpu])
                .args(arguments),
        );
        vm.bytes(1);
        vm
    };
    let held = start(&["--cpu-quota", "0.5", "--cmdline", "period=0"]);
    let mut free = start(&[]);
    // Past the period in which they began.
    free.bytes(10);
    let (begun, before) = (Instant::now(), (held.cpu_time(), free.cpu_time()));
    // A byte is some ten milliseconds of CPU time of the free one.
    while begun.elapsed() < Duration::from_secs(3) {
        free.bytes(1);
    }
    let wall = begun.elapsed().as_secs_f64();
    let share = |now: Duration, before: Duration| (now - before).as_secs_f64() / wall;
    let held = share(held.cpu_time(), before.0);
    let free = share(free.cpu_time(), before.1);
    assert!(
        (0.45..=0.55).contains(&held),
        "{held:.3} CPUs, and the other has {free:.3}"
    );
    assert!(
        free >= 0.35,
        "the rest is for who takes it: {free:.3} CPUs beside {held:.3}"
    );
}

fn pinned() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpus = host_cpus();
    let cpu = cpus[cpus.len() - 1].to_string();
    let mut vm = Vm::start(sandbox.boot("spin").args(["--cpus", "2", "--cpuset", &cpu]));
    vm.bytes(1);
    let threads = vm.threads();
    assert!(
        threads.iter().any(|(name, _)| name == "vcpu1"),
        "{threads:?}"
    );
    for _ in 0..50 {
        vm.bytes(1);
        for (name, thread) in &threads {
            assert_eq!(
                (allowed_cpus(thread), last_cpu(thread)),
                (cpu.clone(), cpu.clone()),
                "{name}"
            );
        }
    }
}

fn beside() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpu = host_cpus()[0].to_string();
    let quota = [
        "--cpu-quota",
        "0.3",
        "--cpuset",
        &cpu,
        "--cpu-scope",
        "vcpus",
    ];
    let mut vm = Vm::start(sandbox.boot("spin").args(["--cpus", "2"]).args(quota));
    vm.bytes(1);
    let all = allowed_cpus(Path::new("/proc/thread-self"));
    // One more is KVM's own, which it puts beside the vCPU that it began with.
    for (name, thread) in vm
        .threads()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("kvm-"))
    {
        let (place, is_vcpu) = (cgroups(&thread), name.starts_with("vcpu"));
        assert_eq!(
            place["cpu"].ends_with("/vcpus"),
            is_vcpu,
            "{name}: {place:?}"
        );
        let expected = if is_vcpu { &cpu } else { &all };
        assert_eq!(&allowed_cpus(&thread), expected, "{name}");
    }
}

/// A file of the memory cgroup that a VM is in.
fn memory_file(vm: &Vm, file: &str) -> PathBuf {
    let place = cgroups(format!("/proc/{}", vm_process(&vm.running)))["memory"].clone();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let is_memory = |line: &&str| line.contains(" cgroup ") && line.contains("memory");
    let mount = mounts
        .lines()
        .find(is_memory)
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap();
    Path::new(mount)
        .join(place.trim_start_matches('/'))
        .join(file)
}

fn memory_count(vm: &Vm, file: &str) -> u64 {
    fs::read_to_string(memory_file(vm, file))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn touches_all() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    for mode in ["shared", "reserved"] {
        let flags = ["--memory", "64M", "--memory-mode", mode];
        let mut vm = Vm::start(sandbox.boot("orders").args(flags));
        assert_eq!(vm.line(), "ready");
        let taken = memory_count(&vm, "memory.usage_in_bytes") >= 64 << 20;
        assert_eq!(taken, mode == "reserved", "{mode}");
        vm.say("t");
        assert_eq!(
            vm.line(),
            format!("touched={}", (64 << 20) - (0x10_0000 - 0x9_fc00))
        );
        let used = memory_count(&vm, "memory.usage_in_bytes");
        let limit = memory_count(&vm, "memory.limit_in_bytes");
        assert!((64 << 20..limit).contains(&used), "{used} of {limit}");
        assert_eq!(
            memory_count(&vm, "memory.memsw.failcnt"),
            0,
            "the limit was never in the way"
        );
        vm.say("q");
        assert_eq!(vm.running.wait().unwrap().code(), Some(0));
    }
}

/// Pages of the host's cache count as the VM's, and those that are still to be written cannot be dropped.
fn writes_fast() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    // Not on a tmpfs, whose pages would stay.
    let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    disk.as_file().set_len(256 << 20).unwrap();
    let mut command = sandbox.boot("virtio_blk_bench");
    command
        .args(["--memory", "64M", "--memory-mode", "reserved", "--disk"])
        .arg(disk.path());
    command.args(["--cmdline", "mmio=0xd0002000 ops=4000 large_ops=400"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("write1m"),
        "{text}"
    );
}

/// Its limit is taken down while it runs, for a VMM that leaks cannot be ordered.
fn killed_alone() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let flags = ["--memory", "64M", "--memory-mode", "shared"];
    let mut good = Vm::start(sandbox.boot("orders").args(flags));
    let mut bad = Vm::start(sandbox.boot("orders").args(flags).stderr(Stdio::piped()));
    assert_eq!((good.line(), bad.line()), ("ready".into(), "ready".into()));
    // The sum with swap is never less than the limit without.
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        fs::write(memory_file(&bad, file), (32 << 20).to_string()).unwrap();
    }
    good.say("t");
    bad.say("t");
    assert_eq!(bad.line(), "");
    assert_eq!(bad.running.wait().unwrap().code(), Some(137));
    let mut message = String::new();
    bad.running
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    let expected =
        "error: the VM was killed because it took more memory than its limit of 32.0 MiB\n  help: ";
    assert!(message.starts_with(expected), "{message}");
    assert!(good.line().starts_with("touched="), "the neighbour lives");
    good.say("q");
    assert_eq!(good.running.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.left_over(), Vec::<PathBuf>::new());
}

fn at_a_terminal() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let (mut ours, theirs) = crate::cli::pseudo_terminal();
    let stdio = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = sandbox.boot("orders");
    command
        .args(["--cpu-quota", "0.5"])
        .stdin(stdio())
        .stdout(stdio());
    let mut child = Running::spawn(&mut command);
    crate::cli::expect(&mut ours, &mut String::new(), "ready");
    let place = cgroups(format!("/proc/{}", vm_process(&child)));
    assert!(place["cpu"].contains("/kvmlet-"), "{place:?}");
    assert!(
        !crate::cli::is_canonical(&theirs),
        "raw while the guest runs"
    );
    // Its process is killed, and the terminal is as it was all the same.
    kill(vm_process(&child), libc::SIGKILL);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(crate::cli::is_canonical(&theirs), "restored");
}

fn best_effort() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpuset = fs::read_to_string("/proc/self/mounts").unwrap();
    let cpuset = cpuset
        .lines()
        .find(|line| line.starts_with("cgroup") && line.contains("cpuset"));
    let mount = cpuset.unwrap().split(' ').nth(1).unwrap();
    let without = |arguments: &str| {
        // The sandbox hides /run; this hides the controller, too.
        let mut command = sandbox.boot("power_off");
        command
            .args(["--cpuset", "0"])
            .args(arguments.split_whitespace());
        let target = std::ffi::CString::new(mount).unwrap();
        let hide = move || {
            // SAFETY: the mount namespace is this process's own, and the string ends with a zero.
            match unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: one system call between fork and exec.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, hide) };
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, message) = without("");
    assert_eq!(code, Some(125), "{message}");
    let cause = "caused by: this host has no cgroup controller `cpuset`, which CPU sets need";
    assert!(
        message.contains(cause) && message.contains("--best-effort"),
        "{message}"
    );
    let (code, message) = without("--best-effort");
    assert_eq!(code, Some(0), "{message}");
    assert!(
        message.contains("WARN") && message.contains("no cgroup controller `cpuset`"),
        "{message}"
    );
}

/// A quarter of the host's CPUs for each, so four can have it.
fn launches_race() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpus = host_cpus().len();
    let flags = [
        format!("--cpu-quota={}", cpus as f64 / 4.0),
        format!("--cpus={}", cpus.div_ceil(4)),
    ];
    let launch = || Vm::start(sandbox.boot("orders").args(&flags).stderr(Stdio::piped()));
    let launched: Vec<Vm> = (0..10).map(|_| launch()).collect();
    let (mut admitted, mut refused) = (Vec::new(), 0);
    for mut vm in launched {
        if vm.line() == "ready" {
            admitted.push(vm);
            continue;
        }
        refused += 1;
        assert_eq!(vm.running.wait().unwrap().code(), Some(125));
        let mut message = String::new();
        vm.running
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut message)
            .unwrap();
        assert!(message.contains("are promised to 4 other VMs"), "{message}");
    }
    assert_eq!((admitted.len(), refused), (4, 6));
    // A killed supervisor takes its VM along, and the next launch has their share.
    let mut killed = admitted.pop().unwrap();
    kill(killed.running.id() as i32, libc::SIGKILL);
    assert_eq!(killed.line(), "");
    eventually("what the killed one had is free", || {
        launch().line() == "ready"
    });
}

/// Numbers that differ from run to run; the seed is told when a test fails.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn killed_at_random() {
    // A thread of its own: a network namespace belongs to a thread, and this one ends with the test.
    std::thread::spawn(|| {
        let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
            return;
        };
        if let Err(reason) = enter_own_network() {
            println!("SKIPPED: {reason}");
            return;
        }
        let seed = u64::from(std::process::id()) << 20 | 0x5eed;
        println!("seed {seed}");
        let mut random = Random(seed);
        for _ in 0..10 {
            let batch = (0..5).map(|_| start_and_kill(&sandbox, &mut random));
            // A pipe ends when the last process that could write to it has ended.
            for mut vm in batch.collect::<Vec<_>>() {
                vm.output.read_to_end(&mut Vec::new()).unwrap();
            }
        }
        let next = || {
            let output = sandbox.boot("power_off").arg("--net").output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            (sandbox.left_over(), interfaces())
        };
        let nothing = (Vec::new(), vec!["lo".to_string()]);
        // Who was killed last may be about to end.
        eventually("nothing is left", || next() == nothing);
    })
    .join()
    .unwrap();
}

/// A VM that is ended at some moment of its start, or after it, in some way.
fn start_and_kill(sandbox: &Sandbox, random: &mut Random) -> Vm {
    let mut command = sandbox.boot("orders");
    command
        .args(["--memory", "16M", "--cpu-quota", "0.02"])
        .stderr(Stdio::null());
    let kind = random.below(4);
    match kind {
        0 => command.arg("--net"),
        1 => command.args([
            "--cpu-scope",
            "vcpus",
            "--cpuset",
            &host_cpus()[0].to_string(),
        ]),
        _ => &mut command,
    };
    let mut vm = Vm::start(&mut command);
    let ready = random.below(3) == 0;
    if ready {
        assert_eq!(vm.line(), "ready");
    } else {
        let moment = Instant::now() + Duration::from_micros(random.below(60_000));
        while Instant::now() < moment {
            std::thread::yield_now();
        }
    }
    // While a network is set up, the supervisor has other children, too.
    let vm_process = vm_process_if_any(&vm.running).filter(|_| ready || kind != 0);
    let target = match random.below(3) {
        0 => vm_process.unwrap_or(vm.running.id() as i32),
        _ => vm.running.id() as i32,
    };
    kill(
        target,
        [libc::SIGTERM, libc::SIGKILL][usize::from(random.below(4) > 0)],
    );
    vm
}

/// The network interfaces that this thread sees.
fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_string()).collect()
}
