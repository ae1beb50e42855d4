//! Who is admitted, what is refused, and what is left of VMs that are killed.

use super::{USUAL_WEIGHT, Vm, cgroup, host_cpus, mount, sandbox};
use crate::cli::{Running, kill, vm_process, vm_process_if_any};
use crate::harness::sandbox::Sandbox;
use crate::harness::{Test, patience::eventually};
use crate::packets::enter_own_network;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
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

fn at_a_terminal() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let (mut ours, theirs) = crate::terminal::pseudo_terminal();
    let stdio = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = sandbox.boot("orders");
    command
        .args(["--cpu-quota", "0.5"])
        .stdin(stdio())
        .stdout(stdio())
        .stderr(Stdio::null());
    let mut child = Running::spawn(&mut command);
    crate::terminal::expect(&mut ours, &mut String::new(), "ready");
    let place = |process: i32| cgroup(format!("/proc/{process}"), "cpu");
    let (vm, supervisor) = (place(vm_process(&child)), place(child.id() as i32));
    let name = format!("/kvmlet-{}-", child.id());
    assert!(vm.contains(&name) && !supervisor.contains(&name), "{vm}");
    assert!(
        !crate::terminal::is_canonical(&theirs),
        "raw while the guest runs"
    );
    // Its process is killed, and the terminal is as it was all the same.
    kill(vm_process(&child), libc::SIGKILL);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(crate::terminal::is_canonical(&theirs), "restored");
}

fn best_effort() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let mount = mount("cpuset").into_os_string().into_encoded_bytes();
    let without = |arguments: &str| {
        // The sandbox hides /run; this hides the controller, too.
        let mut command = sandbox.boot("power_off");
        command
            .args(["--cpuset", "0"])
            .args(arguments.split_whitespace());
        let target = std::ffi::CString::new(&*mount).unwrap();
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
        assert!(message.contains("promised to 4 other VMs"), "{message}");
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

/// How long VMs are started and killed at most.
const ENOUGH: Duration = Duration::from_secs(60);

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
        let begun = Instant::now();
        for batch in 0..10 {
            if begun.elapsed() > ENOUGH {
                println!("after {batch} of 10 batches it is enough on this slow host");
                break;
            }
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
            // What is left of this one's own network goes by itself.
            let nothing = || (sandbox.left_over(), interfaces()) == (vec![], vec!["lo".into()]);
            let until = Instant::now() + Duration::from_secs(1);
            while !nothing() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            nothing()
        };
        // Who was killed last may be about to end.
        eventually("nothing is left", next);
    })
    .join()
    .unwrap();
}

/// A VM that is ended at some moment of its start, or after it, in some way.
fn start_and_kill(sandbox: &Sandbox, random: &mut Random) -> Vm {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut command = sandbox.boot("orders");
    command
        .args(["--memory", "16M", "--cpu-quota", "0.02"])
        .stderr(said.reopen().unwrap());
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
        let said = || std::fs::read_to_string(said.path()).unwrap();
        assert_eq!(vm.line(), "ready", "{}", said());
    } else {
        let moment = Instant::now() + Duration::from_micros(random.below(60_000));
        while Instant::now() < moment {
            std::thread::yield_now();
        }
    }
    let target = match random.below(3) {
        0 => vm_in_its_cgroup(&vm.running).unwrap_or(vm.running.id() as i32),
        _ => vm.running.id() as i32,
    };
    kill(
        target,
        [libc::SIGTERM, libc::SIGKILL][usize::from(random.below(4) > 0)],
    );
    vm
}

/// The process of a VM. Before it is in its cgroup it cannot be told from those that the supervisor starts to set
/// a network up, or to clear that of a VM that was killed.
fn vm_in_its_cgroup(supervisor: &Running) -> Option<i32> {
    let cgroup = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let vm = vm_process_if_any(supervisor)?;
    (cgroup(vm)? != cgroup(supervisor.id() as i32)?).then_some(vm)
}

/// The network interfaces that this thread sees.
fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_string()).collect()
}
