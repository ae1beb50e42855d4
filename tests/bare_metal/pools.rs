//! Pools of VMs that are restored and stand still, until somebody takes one.

use crate::cli::{Running, text};
use crate::harness::control::with_descriptor;
use crate::harness::patience::eventually;
use crate::harness::{Test, deadline, program};
use crate::snapshot::Worker;
use kvmlet_control::{
    Channel, LONGEST, Order, Pool, PoolError, PoolStatus, Received, Report, Request, Taken,
};
use kvmlet_run::instance::Instance;
use kvmlet_spec::{Outcome, Reason};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, read, read_dir};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("a_pool_gives_each_vm_to_one_and_fills_up", gives),
    (
        "the_command_takes_vms_of_a_pool_with_its_streams",
        taken_by_command,
    ),
    ("a_vm_of_a_pool_has_the_time_of_when_it_is_taken", time),
    ("a_pool_that_is_killed_takes_along_what_nobody_has", killed),
    ("a_vm_ends_with_whoever_has_taken_it", takers_killed),
    ("a_pool_without_memory_says_so_and_goes_on", full),
    (
        "a_pool_whose_maker_is_killed_before_it_is_ready_is_none",
        interrupted,
    ),
    ("a_pool_goes_on_with_the_file_that_it_was_made_of", replaced),
    ("no_other_user_takes_vms_of_a_pool", strangers),
    ("what_cannot_be_in_a_pool_is_refused", refused),
    (
        "a_vm_that_was_never_taken_does_not_run_at_its_end",
        never_run,
    ),
];

/// A directory, in a mount namespace with a book and a ledger of its own.
struct Place(TempDir);

/// Runs a test in one. Its pools are ended however it ends.
fn apart(test: impl FnOnce(&Place) + Send) {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let run = || {
        // SAFETY: no memory is involved; this thread moves to a new namespace, and to a directory and a umask of its own.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
        let mount = |words: &[&str]| {
            let status = Command::new("mount").args(words).status().unwrap();
            assert!(status.success(), "{words:?}");
        };
        mount(&["--make-rprivate", "/"]);
        for place in ["/var/lib", "/run"] {
            mount(&["-t", "tmpfs", "tmpfs", place]);
        }
        test(&Place(tempfile::tempdir().unwrap()));
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in text(&self.run(&["pool", "ls", "-q"]).stdout).lines() {
            self.run(&["pool", "rm", name]);
        }
    }
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command
            .args(words)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn refusal(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(
            !output.status.success(),
            "{words:?}: {}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }

    /// A guest that is saved when it has said something, and what that was.
    fn save(&self, guest: &str, cmdline: &str, arguments: &[&str], name: &str) -> String {
        let mut vm = Worker::boot(guest, cmdline, arguments, &self.file("socket"));
        let said = vm.line();
        vm.save(&self.file(name));
        said
    }

    /// A pool of a file, whose processes can be told from all others by a word of their command line.
    fn create(&self, name: &str, size: &str, file: &str, flags: &[&str]) -> Output {
        let mark = self.mark();
        let words = [
            "pool", "create", "--size", size, "--name", name, file, "--stats", &mark,
        ];
        self.run(&[&words, flags].concat())
    }

    /// A VM that has much of the host's memory, as far as the ledger is concerned.
    fn fill(&self, memory: &str) -> Running {
        let mut boot = self.command(&["boot", "-m", memory, "--kernel"]);
        let boot = boot
            .arg(program("serial_echo"))
            .args(["--cmdline", "ready=1"]);
        let mut vm = Running::spawn(boot.stdin(Stdio::piped()).stdout(Stdio::piped()));
        vm.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut said = [0];
        std::io::Read::read_exact(vm.stdout.as_mut().unwrap(), &mut said).unwrap();
        vm
    }

    fn mark(&self) -> String {
        self.file("stats").display().to_string()
    }

    fn socket(name: &str) -> PathBuf {
        Path::new("/var/lib/kvmlet/pools").join(format!("{name}.socket"))
    }

    fn pool(name: &str) -> Pool {
        Pool::to(&Self::socket(name)).unwrap()
    }

    /// The supervisors and the processes of VMs of pools here. (One that nobody has waited for has no command line any more.)
    fn processes(&self, verb: &str) -> Vec<u32> {
        let mark = self.mark();
        let has = |line: &[u8], word: &str| {
            line.split(|byte| *byte == 0)
                .any(|it| it == word.as_bytes())
        };
        let all = read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .filter(|pid: &u32| {
                let line = read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                has(&line, &mark) && has(&line, verb)
            })
            .collect()
    }

    fn expect_vms(&self, what: &str, count: usize) {
        // Each has a supervisor.
        eventually(what, || self.processes("restore").len() == 2 * count);
    }

    fn holder(&self) -> Pid {
        let all = self.processes("hold");
        assert_eq!(all.len(), 1, "{all:?}");
        Pid::from_raw(all[0] as i32).unwrap()
    }
}

fn status(name: &str) -> PoolStatus {
    Place::pool(name).status(deadline()).unwrap()
}

/// Waits until that many are ready.
fn expect_ready(name: &str, count: u32) {
    eventually("the pool is full", || status(name).ready == count);
}

/// One that was taken.
struct Vm {
    channel: Channel,
    input: File,
    lines: Receiver<String>,
}

impl Vm {
    fn take(pool: &mut Pool) -> Self {
        Self::of(pool.take(deadline()).unwrap())
    }

    fn of(taken: Taken) -> Self {
        let output = File::from(taken.output);
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map_while(|line| tell.send(line).ok()).for_each(drop);
        });
        Self {
            channel: taken.channel,
            input: taken.input.into(),
            lines,
        }
    }

    fn line(&self) -> String {
        self.lines
            .recv_timeout(deadline())
            .expect("it says nothing")
    }

    fn ended(self) -> Outcome {
        let until = Until::after(deadline());
        loop {
            let come = wait::one(Slot::readable(self.channel.as_fd()), until).unwrap();
            assert!(come, "it has not ended");
            match self.channel.receive(LONGEST) {
                Received::Last => panic!("its supervisor was killed"),
                Received::None => {}
                Received::One(message) => match Report::decode(&message) {
                    Ok(Report::Ended(outcome)) => return *outcome,
                    other => drop(other),
                },
            }
        }
    }

    fn quit(mut self) {
        self.input.write_all(b"q").unwrap();
        let outcome = self.ended();
        assert_eq!((outcome.reason, outcome.code), (Reason::Shutdown, Some(0)));
    }
}

/// More at once than there are, by several at once: each gets one of its own, which another machine was before it was anybody's.
fn gives() {
    apart(|place| {
        let cpus = ["--cpus", "2", "-m", "32M"];
        let first = place.save("generation", "", &cpus, "saved");
        let made = place.create("web", "3", "saved", &[]);
        assert_eq!(
            (text(&made.stdout), text(&made.stderr)),
            ("web\n".into(), String::new())
        );
        assert_eq!(status("web").ready, 3);
        place.expect_vms("three are parked", 3);
        let takers = (0..4).map(|_| std::thread::spawn(|| Vm::take(&mut Place::pool("web"))));
        let takers: Vec<_> = takers.collect();
        let vms: Vec<Vm> = takers.into_iter().map(|it| it.join().unwrap()).collect();
        let mut seen = vec![first.split(' ').next().unwrap().to_owned()];
        for vm in &vms {
            // What one had begun to say when it was saved, it may end first.
            let line =
                std::iter::from_fn(|| Some(vm.line())).find(|line| line.contains("taken=1,1"));
            let line = line.unwrap();
            let (id, rest) = line.split_once(' ').unwrap();
            assert_eq!(rest, "taken=1,1 acpi=1 late=0,0", "{line}");
            assert!(!seen.contains(&id.to_owned()), "{id} in {seen:?}");
            seen.push(id.into());
        }
        expect_ready("web", 3);
        assert_eq!((status("web").taken, status("web").lack), (4, None));
        vms.into_iter().for_each(Vm::quit);
        // One connection is good for many.
        let mut pool = Place::pool("web");
        for _ in 0..10 {
            Vm::take(&mut pool).quit();
        }
        // As an embedder has it.
        let (mut running, _streams) = Instance::take(&mut pool, deadline()).unwrap();
        assert_eq!(running.stats().unwrap().vm.vcpus.len(), 2);
        running.pause().unwrap();
        running.resume().unwrap();
        assert_eq!(
            running.stop(Duration::ZERO).unwrap().reason,
            Reason::Stopped
        );
        assert_eq!(running.pid(), 0);
        assert_eq!(place.done(&["pool", "rm", "web"]), "web\n");
        assert!(matches!(pool.take(deadline()), Err(PoolError::Closed)));
        place.expect_vms("all are gone", 0);
        assert_eq!(place.done(&["pool", "ls", "-q"]), "");
    });
}

fn taken_by_command() {
    apart(|place| {
        place.save("serial_echo", "", &["-m", "32M"], "saved");
        for flags in [&["--no-jail"][..], &[]] {
            place.create("web", "1", "saved", flags);
            let mut child = place
                .command(&["pool", "take", "web"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let input = "more than any buffer holds, ".repeat(300) + "q";
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(42), "{}", text(&output.stderr));
            let said = text(&output.stdout);
            assert!(
                said.contains(&input.trim_end_matches('q').to_uppercase()),
                "{}",
                said.len()
            );
            // A signal to who has taken one is the VM's.
            let stays = place
                .command(&["pool", "take", "web"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            eventually("it is taken", || status("web").taken == 2);
            kill_process(Pid::from_child(&stays), Signal::TERM).unwrap();
            let output = stays.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(128 + libc::SIGTERM));
            assert!(place.done(&["pool", "ls"]).contains("web"));
            place.done(&["pool", "rm", "web"]);
            place.expect_vms("all are gone", 0);
        }
        let said = place.refusal(&["pool", "take", "web"]);
        assert!(said.contains("there is no pool `web`"), "{said}");
    });
}

/// KVM's clock has gone on while the VM stood still, however long that was.
fn time() {
    apart(|place| {
        let number = |line: &str| -> Duration {
            let number = line.strip_prefix("now=").expect(line);
            Duration::from_nanos(number.parse().unwrap())
        };
        let before = Instant::now();
        let then = number(&place.save("kvmclock", "time=1", &["-m", "32M"], "saved"));
        let said = Instant::now();
        place.create("web", "1", "saved", &[]);
        std::thread::sleep(Duration::from_millis(1500));
        let asked = Instant::now();
        let vm = Vm::take(&mut Place::pool("web"));
        let now = number(&vm.line());
        let passed = now.checked_sub(then).expect("it went back");
        let slack = Duration::from_millis(100);
        assert!(
            passed + slack >= asked - said,
            "{passed:?} in {:?}",
            asked - said
        );
        assert!(
            passed <= before.elapsed() + slack,
            "{passed:?} in {:?}",
            before.elapsed()
        );
    });
}

/// At any instant: what is parked goes with the pool, what is being made as well, and what was taken goes on.
fn killed() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        for round in 0..8u64 {
            let made = place.create("web", "3", "saved", &[]);
            // The name of one that was killed is free again.
            assert!(made.status.success(), "{}", text(&made.stderr));
            let holder = place.holder();
            let vm = Vm::take(&mut Place::pool("web"));
            vm.line();
            let drained = Vm::take(&mut Place::pool("web"));
            std::thread::sleep(Duration::from_micros(round * round * 300));
            kill_process(holder, Signal::KILL).unwrap();
            place.expect_vms("those that somebody has are left", 2);
            for vm in [&vm, &drained] {
                (0..3).for_each(|_| drop(vm.line()));
            }
            [vm, drained].into_iter().for_each(Vm::quit);
            place.expect_vms("they have ended", 0);
            let listed = place.done(&["pool", "ls", "--format", "{{.Name}} {{.Status}}"]);
            assert_eq!(listed, "web dead\n");
            let said = place.refusal(&["pool", "take", "web"]);
            assert!(
                said.contains("the process of pool `web` has ended"),
                "{said}"
            );
        }
        place.done(&["pool", "rm", "web"]);
        let said = place.refusal(&["pool", "rm", "web"]);
        assert!(said.contains("there is no pool `web`"), "{said}");
    });
}

fn takers_killed() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        place.create("web", "2", "saved", &[]);
        for round in 0..8u64 {
            let mut taker = place
                .command(&["pool", "take", "web"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Before it has asked, while it is answered, and later.
            std::thread::sleep(Duration::from_micros(round * round * 1000));
            taker.kill().unwrap();
            taker.wait().unwrap();
            expect_ready("web", 2);
            place.expect_vms("its VM is gone", 2);
        }
        // One that runs, and whose last holder is gone, whoever that was.
        let vm = Vm::take(&mut Place::pool("web"));
        vm.line();
        expect_ready("web", 2);
        place.expect_vms("it runs", 3);
        drop(vm);
        place.expect_vms("it is gone", 2);
    });
}

/// The ledger has no room for all of them; when it has, the pool fills up.
fn full() {
    apart(|place| {
        const EACH: u64 = 512;
        place.save("saved", "", &["-m", &format!("{EACH}M")], "saved");
        let filler = filling((EACH + 17) * 5 / 2);
        let filled = place.fill(&filler);
        let made = place.create("web", "3", "saved", &[]);
        let said = text(&made.stderr);
        assert!(made.status.success(), "{said}");
        assert!(
            said.contains("not all VMs of the pool are ready") && said.contains("memory"),
            "{said}"
        );
        let listed = || place.done(&["pool", "ls", "--format", "{{.Ready}} {{.Status}}"]);
        assert!(listed().starts_with("2 short: "), "{}", listed());
        // It gives what it has, and then says why there is no more.
        let mut pool = Place::pool("web");
        let vms = [Vm::take(&mut pool), Vm::take(&mut pool)];
        match pool.take(deadline()) {
            Err(PoolError::Refused(why)) => assert!(why.contains("memory"), "{why}"),
            other => panic!("{other:?}"),
        }
        vms.into_iter().for_each(Vm::quit);
        expect_ready("web", 2);
        drop(filled);
        expect_ready("web", 3);
        assert_eq!(listed(), "3 ready\n");
        // A pool of which nothing is ready is none.
        place.done(&["pool", "rm", "web"]);
        let filler = filling(EACH / 2);
        let filled = place.fill(&filler);
        let made = place.create("web", "3", "saved", &[]);
        let said = text(&made.stderr);
        assert!(
            !made.status.success() && said.contains("no VM of the pool is ready"),
            "{said}"
        );
        assert!(said.contains("memory"), "{said}");
        assert_eq!(listed(), "");
        drop(filled);
    });
}

/// Nobody has heard its name then.
fn interrupted() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        for (round, signal) in (0..).zip([Signal::KILL, Signal::TERM, Signal::INT]) {
            // More than are ready in a moment.
            let words = ["pool", "create", "--size", "200", "--name", "web", "saved"];
            let mut create = place.command(&words).stdout(Stdio::null()).spawn().unwrap();
            eventually("it has begun", || Place::socket("web").exists());
            std::thread::sleep(Duration::from_millis(20 * round));
            kill_process(Pid::from_child(&create), signal).unwrap();
            create.wait().unwrap();
            eventually("it is gone", || {
                place.done(&["pool", "ls", "-q"]).is_empty()
            });
            assert!(!Place::socket("web").exists());
        }
        // One that has begun does not need whoever has made it, nor the directory in which that was.
        place.done(&["pool", "create", "--name", "web", "saved"]);
        let holders = read_dir("/proc").unwrap().flatten().filter(|entry| {
            let line = read(entry.path().join("cmdline")).unwrap_or_default();
            let line: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let saved = place.file("saved");
            line.contains(&&b"hold"[..]) && line.contains(&saved.as_os_str().as_encoded_bytes())
        });
        let places = holders.map(|entry| std::fs::read_link(entry.path().join("cwd")).unwrap());
        assert_eq!(places.collect::<Vec<_>>(), [Path::new("/")]);
        Vm::take(&mut Place::pool("web")).quit();
    });
}

/// The memory of a VM that leaves about that much of the host's, in MiB, with what the VM is promised beyond it.
fn filling(left: u64) -> String {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().strip_suffix(" kB"));
    let mib = kib.unwrap().parse::<u64>().unwrap() / 1024;
    format!("{}M", (mib - left - 10) * 64 / 65)
}

fn replaced() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        place.save("power_button", "", &["-m", "32M"], "other");
        place.create("web", "2", "saved", &[]);
        let mut pool = Place::pool("web");
        let mut are_the_same = |times: usize| {
            for _ in 0..times {
                let vm = Vm::take(&mut pool);
                while !vm.line().starts_with("round=") {}
                vm.quit();
            }
            expect_ready("web", 2);
        };
        std::fs::rename(place.file("other"), place.file("saved")).unwrap();
        are_the_same(4);
        std::fs::remove_file(place.file("saved")).unwrap();
        are_the_same(4);
        assert_eq!(status("web").lack, None);
    });
}

/// Its files are its user's alone; and where they were not, who connects is looked at.
fn strangers() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        place.create("web", "1", "saved", &[]);
        let as_stranger = || {
            let ask = || {
                // SAFETY: numbers; the system call changes the user of this thread alone.
                unsafe { libc::syscall(libc::SYS_setresuid, 12345, 12345, 12345) };
                Pool::to(&Place::socket("web")).map(|mut pool| pool.take(deadline()).map(drop))
            };
            std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
        };
        let refused = as_stranger().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        let socket = Place::socket("web");
        for (path, mode) in socket.ancestors().take(3).zip(["666", "755", "755"]) {
            let status = Command::new("chmod").arg(mode).arg(path).status();
            assert!(status.unwrap().success());
        }
        assert!(matches!(as_stranger(), Ok(Err(PoolError::Closed))));
        assert_eq!((status("web").ready, status("web").taken), (1, 0));
        // What is no message ends the connection of who has said it, and nothing else.
        let (kind, flags) = (
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
        );
        let odd =
            rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
        rustix::net::connect(&odd, &rustix::net::SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::send(&odd, &[7; 4000], rustix::net::SendFlags::NOSIGNAL).unwrap();
        let closed = rustix::net::recv(&odd, &mut [0; 1][..], rustix::net::RecvFlags::empty());
        assert!(
            matches!(closed, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET)),
            "{closed:?}"
        );
        Vm::take(&mut Place::pool("web")).quit();
    });
}

fn refused() {
    apart(|place| {
        place.save("saved", "", &["-m", "32M"], "saved");
        let create =
            |words: &[&str]| place.refusal(&[&["pool", "create", "--size", "2"], words].concat());
        for (words, expected) in [
            (&["nothing"][..], "cannot use snapshot `nothing`"),
            (&["stats.json"], "it is cut short"),
            (&["saved", "--no-jail", "--name", "no"], "are no instances"),
            (&["saved", "-d"], "are no instances"),
            (&["saved", "--ready-fd", "5"], "have no descriptors"),
            (&["saved", "--config", "-"], "have no descriptors"),
            (
                &["saved", "--memory", "5"],
                "unexpected argument '--memory'",
            ),
            (
                &["saved", "--disk", "nothing"],
                "no VM of the pool is ready",
            ),
            (&["--name", "x", "saved"], "two characters"),
        ] {
            std::fs::write(place.file("stats.json"), "{}").unwrap();
            let said = create(words);
            assert!(said.contains(expected), "{words:?}: {said}");
        }
        let said = place.refusal(&["pool", "create", "--size", "0", "saved"]);
        assert!(said.contains("0 is not in"), "{said}");
        assert_eq!(place.done(&["pool", "ls", "-q"]), "");
        place.create("web", "1", "saved", &[]);
        let said = create(&["--name", "web", "saved"]);
        assert!(said.contains("there is a pool `web` already"), "{said}");
        // Whoever removes one that is there again does not remove the one that is there now.
        assert_eq!(status("web").ready, 1);
    });
}

/// Whoever wants the end of a VM that was never to run does not have it run for that, though its guest would hear a button.
fn never_run() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let mut vm = Worker::boot("power_button", "code=7", &["-m", "32M"], &file("socket"));
    assert_eq!(vm.line(), "ready");
    vm.save(&file("saved"));
    for jail in ["--jail", "--no-jail"] {
        for order in [None, Some(Order::Stop { patience_ms: None })] {
            let (channel, theirs) = Channel::pair().unwrap();
            let mut restore = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
            restore.args(["restore", "--paused", jail]);
            with_descriptor(&mut restore, "--channel-fd", theirs.into());
            let output = File::create(file("output")).unwrap();
            let child = restore
                .arg(file("saved"))
                .stdin(Stdio::null())
                .stdout(output)
                .spawn();
            drop(restore);
            let until = Until::after(deadline());
            let tells = || loop {
                assert!(wait::one(Slot::readable(channel.as_fd()), until).unwrap());
                match channel.receive(LONGEST) {
                    Received::One(message) => break Report::decode(&message).unwrap(),
                    Received::None => {}
                    Received::Last => panic!("it was killed"),
                }
            };
            while tells() != Report::Ready {}
            match order {
                None => drop(channel),
                Some(order) => {
                    channel
                        .send(&Request { number: 1, order }.encode())
                        .unwrap();
                    let outcome = loop {
                        if let Report::Ended(outcome) = tells() {
                            break outcome;
                        }
                    };
                    assert_eq!(outcome.reason, Reason::Stopped);
                }
            }
            child.unwrap().wait().unwrap();
            assert_eq!(std::fs::read_to_string(file("output")).unwrap(), "");
        }
    }
}
