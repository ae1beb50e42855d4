//! Who is admitted, in one process and in many.

use super::roll_tests::claims;
use super::*;
use crate::config::{MemorySize, VmConfig};
use crate::shares::cgroup::{Hierarchies, Limits};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, Mutex};

pub(super) const PLACE: &str = "KVMLET_TEST_LEDGER";

fn host() -> Host {
    Host {
        cpus: "0-1".parse().unwrap(),
        memory_bytes: 1.gib().bytes(),
        available_bytes: || 700 << 20,
    }
}

pub(super) fn promise(
    cpu_milli: u32,
    cpus: Option<&str>,
    memory_mib: u64,
    reserved: bool,
) -> Promise {
    Promise {
        cpu_milli,
        cpus: cpus.map(|text| text.parse().unwrap()),
        memory_bytes: memory_mib << 20,
        reserved,
    }
}

pub(super) fn admit(runtime: &Path, promise: Promise, overcommit: &str) -> Result<Share, Error> {
    let overcommit = match overcommit {
        "" => Overcommit::default(),
        text => text.parse().unwrap(),
    };
    let runtime = RuntimeDirectory::at(runtime).unwrap();
    Ledger::lock(&runtime)?.admit(promise, overcommit, &host(), None)
}

pub(super) fn ledger(runtime: &Path) -> Ledger {
    Ledger::lock(&RuntimeDirectory::at(runtime).unwrap()).unwrap()
}

/// How many VMs are promised something.
pub(super) fn count(runtime: &Path) -> usize {
    ledger(runtime).promises().unwrap().len()
}

/// The error and its way out.
fn refusal(result: Result<Share, Error>) -> String {
    let error = result.err().unwrap();
    format!(
        "{error}\n{}",
        error
            .help()
            .unwrap()
            .in_words_of(crate::config::Dialect::Flags)
    )
}

#[test]
fn cpus_are_promised_once() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let half = || promise(500, None, 16, false);
    let shares: Vec<Share> = (0..3)
        .map(|_| admit(runtime, half(), "").unwrap())
        .collect();
    let text = refusal(admit(runtime, promise(750, None, 16, false), ""));
    assert_eq!(
        text,
        "0.75 CPUs were asked for, 0.5 is left: 1.5 of the 2 CPUs of this host are promised to 3 other VMs\n\
         ask for less with --cpu-quota, end other VMs, or let CPUs be promised more than once: --overcommit \
         cpus=1.13"
    );
    let text = refusal(admit(runtime, promise(2000, None, 16, false), "cpus=1.5"));
    assert!(
        text.contains("of this host (overcommit 1.5: 3) are promised"),
        "{text}"
    );
    // The way out is one; and a VM without a quota takes nothing.
    let more = admit(runtime, promise(750, None, 16, false), "cpus=1.13").unwrap();
    let none = admit(runtime, promise(0, Some("0"), 16, false), "").unwrap();
    assert_eq!(count(runtime), 5);
    drop((shares, more, none));
    assert_eq!(count(runtime), 0);
}

#[test]
fn bound_vms_share_their_cpus_only() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let _first = admit(runtime, promise(600, Some("0"), 16, false), "").unwrap();
    let text = refusal(admit(runtime, promise(500, Some("0"), 16, false), ""));
    assert_eq!(
        text,
        "0.5 CPUs were asked for, but then 1.1 would be promised of CPU 0, where 1 may be\n\
         ask for less with --cpu-quota, for other CPUs with --cpuset, or let CPUs be promised more than once: \
         --overcommit cpus=1.1"
    );
    let _second = admit(runtime, promise(500, None, 16, false), "").unwrap();
    let _third = admit(runtime, promise(900, Some("0-1"), 16, false), "").unwrap();
    let text = refusal(admit(runtime, promise(0, Some("1-3"), 16, false), ""));
    assert_eq!(
        text,
        "the CPU set 1-3 cannot be used: this process may use CPUs 0-1, but not 2-3\nchoose among 0-1"
    );
}

#[test]
fn memory_is_shared_or_reserved() {
    let runtime = tempfile::tempdir().unwrap();
    let runtime = runtime.path();
    let ask = |mib, reserved, overcommit: &str| {
        admit(runtime, promise(0, None, mib, reserved), overcommit)
    };
    let text = refusal(ask(701, true, ""));
    assert_eq!(
        text,
        "701 MiB of memory is taken before the guest starts, and 700 MiB is available on this host now\n\
         ask for less with --memory, end other programs, or do without --memory-mode reserved and --prefault"
    );
    let _reserved = ask(600, true, "").unwrap();
    let plenty = |mib, reserved, overcommit: &str| {
        let host = Host {
            available_bytes: || 2 << 30,
            ..host()
        };
        let overcommit = overcommit.parse().unwrap();
        ledger(runtime).admit(promise(0, None, mib, reserved), overcommit, &host, None)
    };
    let text = refusal(ask(500, false, ""));
    assert_eq!(
        text,
        "500 MiB of memory was asked for, 424 MiB is left: 600 MiB of the 1024 MiB of this host is promised \
         to 1 other VM\n\
         ask for less with --memory, end other VMs, or let memory be promised more than once: --overcommit \
         memory=1.08"
    );
    let _shared = ask(500, false, "memory=1.5").unwrap();
    let text = refusal(plenty(425, true, "memory=1.5"));
    assert_eq!(
        text,
        "425 MiB of reserved memory was asked for, 424 MiB is left: 600 MiB of the 1024 MiB of this host is \
         reserved for 1 other VM\n\
         ask for less with --memory, end other VMs, or share with --memory-mode shared"
    );
    let _last = plenty(424, true, "memory=1.5").unwrap();
    let text = refusal(ask(16, false, "memory=0.5"));
    assert!(
        text.contains("0 MiB is left") && text.contains("(overcommit 0.5: 512 MiB)"),
        "{text}"
    );
}

#[test]
fn a_configuration_says_what_it_asks_for() {
    let config =
        |json: &str| VmConfig::from_json(&format!(r#"{{"kernel": "k", {json}}}"#)).unwrap();
    let plain = config(r#""memory": "128M""#);
    let overhead = plain.overhead().bytes();
    assert_eq!(overhead, (8 << 20) + (2 << 20) + (256 << 10));
    assert_eq!(
        Promise::of(&plain),
        Promise {
            memory_bytes: (128 << 20) + overhead,
            ..Promise::default()
        }
    );
    let all = Promise::of(&config(
        r#""cpu_quota": 0.5, "cpuset": "1", "memory_mode": "reserved""#,
    ));
    assert_eq!(
        (all.cpu_milli, all.cpus, all.reserved),
        (500, "1".parse().ok(), true)
    );
    // The kernel keeps the ledger of the pool's pages.
    let pool = Promise::of(&config(r#""memory": "128M", "huge_pages": "reserved""#));
    assert_eq!((pool.memory_bytes, pool.reserved), (overhead, true));
}

#[test]
fn of_many_threads_exactly_as_many_get_a_share_as_there_are() {
    let runtime = tempfile::tempdir().unwrap();
    let (start, admitted) = (Barrier::new(32), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                start.wait();
                match admit(runtime.path(), promise(300, None, 16, false), "") {
                    Ok(share) => admitted.lock().unwrap().push(share),
                    Err(error) => assert!(matches!(error, Error::Cpu { .. }), "{error}"),
                }
            });
        }
    });
    assert_eq!(admitted.lock().unwrap().len(), 6);
}

/// Another process of the same test, which tries when told to and prints what came of it.
pub(super) fn contender(
    test: &str,
    directory: &Path,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", test])
        .env(PLACE, directory);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(answer(&mut output), "ready");
    (child, output)
}

/// The next line that is for us.
pub(super) fn answer(output: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "the other process has ended"
        );
        if let Some(answer) = line.split("kvmlet-test:").nth(1) {
            return answer.trim().into();
        }
    }
}

pub(super) fn told() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn of_many_processes_exactly_as_many_get_a_share_and_the_dead_give_theirs_back() {
    if let Some(directory) = std::env::var_os(PLACE) {
        println!("kvmlet-test:ready");
        told();
        let share = admit(Path::new(&directory), promise(500, None, 16, false), "");
        println!(
            "kvmlet-test:{}",
            if share.is_ok() { "admitted" } else { "refused" }
        );
        told();
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let test = "shares::ledger::tests::of_many_processes_exactly_as_many_get_a_share_and_the_dead_give_theirs_back";
    let mut all: Vec<_> = (0..8).map(|_| contender(test, runtime.path())).collect();
    for (child, _) in &mut all {
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for (child, mut output) in all {
        match answer(&mut output).as_str() {
            "admitted" => admitted.push((child, output)),
            _ => refused.push((child, output)),
        }
    }
    assert_eq!((admitted.len(), refused.len()), (4, 4));
    assert!(admit(runtime.path(), promise(500, None, 16, false), "").is_err());
    let (mut killed, _) = admitted.pop().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let share = admit(runtime.path(), promise(500, None, 16, false), "").unwrap();
    for (mut child, _output) in admitted.into_iter().chain(refused) {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    drop(share);
    assert_eq!(claims(runtime.path()), 0);
}

/// The host seems to have 100 MiB available, whoever takes what.
fn reserve(runtime: &Path, mib: u64) -> Result<Share, Error> {
    let host = Host {
        available_bytes: || 100 << 20,
        ..host()
    };
    let promise = promise(0, None, mib, true);
    ledger(runtime).admit(promise, Overcommit::default(), &host, None)
}

#[test]
fn memory_that_is_reserved_and_not_yet_taken_is_not_available() {
    let test = "shares::ledger::tests::memory_that_is_reserved_and_not_yet_taken_is_not_available";
    if let Some(directory) = std::env::var_os(PLACE) {
        println!("kvmlet-test:ready");
        let share = reserve(Path::new(&directory), 64);
        println!("kvmlet-test:{}", share.is_ok());
        told();
        let taken = std::hint::black_box(vec![1u8; 64 << 20]);
        println!("kvmlet-test:taken");
        told();
        drop(taken);
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let (mut child, mut output) = contender(test, runtime.path());
    assert_eq!(answer(&mut output), "true");
    let text = refusal(reserve(runtime.path(), 64));
    let (asked, available) = text.split_once(", and ").unwrap();
    assert_eq!(asked, "64 MiB of memory is taken before the guest starts");
    // What the other process has, beside what it was promised, is a few MiB.
    let available: Option<u32> = available.split(' ').next().and_then(|mib| mib.parse().ok());
    assert!(matches!(available, Some(36..50)), "{text}");
    assert!(text.contains("where other VMs are still taking "), "{text}");
    drop(reserve(runtime.path(), 30).unwrap());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"\n").unwrap();
    assert_eq!(answer(&mut output), "taken");
    drop(reserve(runtime.path(), 64).unwrap());
    drop(input);
    child.wait().unwrap();
}

#[test]
fn what_a_killed_process_has_left_in_its_cgroup_goes_with_the_next_command() {
    let test = "shares::ledger::tests::what_a_killed_process_has_left_in_its_cgroup_goes_with_the_next_command";
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    let plan = Plan::new(
        &Hierarchies::find().unwrap(),
        &cgroup::unique_name(),
        &limits,
        None,
    );
    if let Some(directory) = std::env::var_os(PLACE) {
        let ledger = ledger(Path::new(&directory));
        let share = ledger.admit(
            promise(0, None, 16, false),
            Overcommit::default(),
            &host(),
            Some(plan),
        );
        let share = std::sync::Arc::new(share.unwrap());
        let mut command = Command::new("sleep");
        let joined = share.clone();
        let enter = move || {
            joined
                .cgroup()
                .unwrap()
                .join()
                .map_err(std::io::Error::other)
        };
        // SAFETY: between fork and exec small files are read and written.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, enter) };
        let mut child = command.arg("1000").stdin(Stdio::null()).spawn().unwrap();
        println!("kvmlet-test:ready");
        println!("kvmlet-test:{}", child.id());
        told();
        panic!("this process is killed, not told: {:?}", child.wait());
    }
    // Makes nothing; where it fails is where the other process would.
    if let Err(error) = plan.whole() {
        println!("SKIPPED: {error}");
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let (mut child, mut output) = contender(test, runtime.path());
    let orphan: i32 = answer(&mut output).parse().unwrap();
    let orphan = rustix::process::Pid::from_raw(orphan).unwrap();
    let pidfd = rustix::process::pidfd_open(orphan, rustix::process::PidfdFlags::empty()).unwrap();
    let (live, _) =
        Claims::<Entry>::lock(&RuntimeDirectory::at(runtime.path()).unwrap(), DIRECTORY)
            .unwrap()
            .all()
            .unwrap();
    let made = live[0].cgroups.clone();
    assert!(
        !made.is_empty() && made.iter().all(|path| path.is_dir()),
        "{made:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(ledger(runtime.path()));
    assert!(made.iter().all(|path| !path.exists()), "{made:?}");
    assert_eq!(claims(runtime.path()), 0);
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let gone = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default()));
    assert_eq!(gone, Ok(1), "who was in it is gone");
}
