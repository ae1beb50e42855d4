//! `kvmlet boot` at a terminal: keys, modes, jobs.

use crate::cli::{Running, kill, kvmlet, text, vm_process};
use crate::harness::{Test, deadline, patience::eventually};
use crate::hostile::scene::make_device;
use crate::ports::on_own_host;
use crate::supervisor::server;
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{File, read_link, read_to_string};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("a_terminal_is_raw_and_restored", terminal),
    ("a_vm_at_a_terminal_is_jailed_and_does_not_have_it", jailed),
    ("who_serves_strangers_only_writes_to_a_terminal", strangers),
    (
        "a_terminal_of_another_user_is_left_to_the_supervisor_too",
        of_another_user,
    ),
    (
        "the_escape_key_works_while_the_guest_takes_no_keys",
        no_keys_taken,
    ),
    ("a_job_is_stopped_and_goes_on", job),
    ("a_job_in_the_background_runs_and_comes_forward", background),
    ("no_death_leaves_a_terminal_raw", deaths),
    ("the_guest_is_told_of_the_terminal", size),
];

/// A pseudo-terminal: our end, and the one that a program takes for its terminal.
pub fn pseudo_terminal() -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    (File::from(ours), theirs)
}

/// Is the terminal as a shell wants it?
pub fn is_canonical(terminal: &OwnedFd) -> bool {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    modes.contains(LocalModes::ICANON | LocalModes::ECHO)
}

/// Reads until `wanted` is in what was seen.
pub fn expect(terminal: &mut File, seen: &mut String, wanted: &str) {
    let deadline = Instant::now() + deadline();
    while !seen.contains(wanted) {
        assert!(Instant::now() < deadline, "no {wanted:?} in {seen:?}");
        let mut buffer = [0; 256];
        let count = terminal.read(&mut buffer).unwrap();
        seen.push_str(&text(&buffer[..count]));
    }
}

/// A guest at a terminal.
fn boot(guest: &str, arguments: &[&str], theirs: &OwnedFd) -> Command {
    let stdio = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = kvmlet(guest);
    command.args(arguments);
    command.stdin(stdio()).stdout(stdio()).stderr(stdio());
    command
}

fn terminal() {
    for jail in [&["--no-jail"][..], &["--jail"], &[]] {
        at_a_terminal(jail);
    }
}

fn at_a_terminal(jail: &[&str]) {
    let (mut ours, theirs) = pseudo_terminal();
    assert!(is_canonical(&theirs));
    let mut child = Running::spawn(&mut boot("serial_echo", jail, &theirs));
    let mut seen = String::new();
    expect(&mut ours, &mut seen, "ready");
    assert!(!is_canonical(&theirs), "raw while the guest runs");
    // Ctrl-C goes to the guest, which echoes it like any byte; Ctrl-] ends the VM.
    ours.write_all(b"ab\x03c").unwrap();
    expect(&mut ours, &mut seen, "AB\x03C");
    ours.write_all(b"\x1d").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_canonical(&theirs), "restored");
}

/// Who takes over the VM's process can neither read what is typed to others later, nor set modes.
fn jailed() {
    let (mut ours, theirs) = pseudo_terminal();
    let child = Running::spawn(&mut boot("serial_echo", &[], &theirs));
    expect(&mut ours, &mut String::new(), "ready");
    let vm = vm_process(&child);
    let own = read_link("/proc/self/ns/mnt").unwrap();
    assert_ne!(read_link(format!("/proc/{vm}/ns/mnt")).unwrap(), own);
    does_not_have_it(vm);
}

/// As after `su`: the terminal's node is another user's, and may not be opened.
fn of_another_user() {
    const USER: u32 = 23_006;
    on_own_host(|| {
        make_device(Path::new("/run/kvm"), (10, 232)).unwrap();
        rustix::mount::mount_bind("/run/kvm", "/dev/kvm").unwrap();
        let (mut ours, theirs) = pseudo_terminal();
        let command = boot("serial_echo", &[], &theirs);
        let user = ["--reuid", "--regid"].map(|flag| format!("{flag}={USER}"));
        let mut su = Command::new("setpriv");
        su.args(user).args(["--clear-groups", "--"]);
        su.arg(command.get_program()).args(command.get_args());
        let mut shell = shell("exec \"$@\"", &su, &theirs);
        expect(&mut ours, &mut String::new(), "ready");
        does_not_have_it(vm_process(&shell));
        goes_on(&mut ours, &theirs, &mut shell);
        assert!(is_canonical(&theirs), "restored");
    });
}

/// Keys come to a VM's process by a pipe, and what it writes goes to the terminal by descriptors that cannot be read.
fn does_not_have_it(vm: i32) {
    let input = read_link(format!("/proc/{vm}/fd/0")).unwrap();
    assert!(input.to_str().unwrap().starts_with("pipe:"), "{input:?}");
    only_writes_to(vm, &[1, 2]);
}

fn only_writes_to(process: i32, outputs: &[u32]) {
    for output in outputs {
        let flags = read_to_string(format!("/proc/{process}/fdinfo/{output}")).unwrap();
        let mut flags = flags.lines().filter_map(|line| line.strip_prefix("flags:"));
        let flags = flags.next().unwrap().trim();
        assert!(flags.ends_with('1'), "{flags}: not only to be written to");
    }
}

/// Nor can who takes over the process for strangers.
fn strangers() {
    on_own_host(|| {
        let (mut ours, theirs) = pseudo_terminal();
        let child = Running::spawn(&mut boot("serial_echo", &["-p", "8080:80"], &theirs));
        expect(&mut ours, &mut String::new(), "ready");
        let server = server(child.id());
        let is_terminal = |number: &u32| {
            let target = read_link(format!("/proc/{server}/fd/{number}")).unwrap_or_default();
            target.starts_with("/dev/pts")
        };
        let seen = || -> Vec<u32> { (0..1000).filter(is_terminal).collect() };
        eventually("the supervisor's descriptors are closed", || {
            !is_terminal(&0) && !is_terminal(&1)
        });
        assert!(seen().contains(&2), "{:?}", seen());
        only_writes_to(server as i32, &seen());
    });
}

fn no_keys_taken() {
    for jail in ["--jail", "--no-jail"] {
        let (mut ours, theirs) = pseudo_terminal();
        let mut child = Running::spawn(&mut boot("spin", &[jail], &theirs));
        let mut buffer = [0; 1];
        ours.read_exact(&mut buffer).unwrap();
        ours.write_all(b"abc").unwrap();
        // More than any buffer on the way has room for, while the guest writes.
        let mut reader = ours.try_clone().unwrap();
        let reading = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        for _ in 0..60 {
            ours.write_all(&[b'x'; 4000]).unwrap();
        }
        ours.write_all(b"\x1d").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        drop(theirs);
        // The terminal is gone: EIO.
        assert!(reading.join().unwrap().is_err());
    }
}

/// The state of a process: T is stopped.
fn state(process: i32) -> char {
    let stat = read_to_string(format!("/proc/{process}/stat")).unwrap();
    let state = stat.rsplit(") ").next().unwrap();
    state.chars().next().unwrap()
}

/// The only child of a process that has one thread.
fn child_of(process: i32) -> i32 {
    let children = read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.unwrap().trim().parse().unwrap()
}

/// A shell that has the terminal and runs a script, with a command as its arguments.
pub fn shell(script: &str, command: &Command, theirs: &OwnedFd) -> Running {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", script, "bash"])
        .arg(command.get_program());
    shell.args(command.get_args());
    let stdio = || Stdio::from(theirs.try_clone().unwrap());
    shell.stdin(stdio()).stdout(stdio()).stderr(stdio());
    let lead = || {
        // SAFETY: takes standard input, a terminal, as that of a new session.
        match unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1 } {
            true => Ok(()),
            false => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: system calls between fork and exec.
    unsafe { shell.pre_exec(lead) };
    Running::spawn(&mut shell)
}

/// The guest gets keys, one by one, and the escape key ends it.
fn goes_on(ours: &mut File, theirs: &OwnedFd, shell: &mut Running) {
    eventually("it has the terminal", || !is_canonical(theirs));
    let mut seen = String::new();
    ours.write_all(b"abc").unwrap();
    expect(ours, &mut seen, "ABC");
    ours.write_all(b"\x1d").unwrap();
    assert_eq!(shell.wait().unwrap().code(), Some(0), "{seen}");
}

fn job() {
    // It says when its job has stopped, and has it continue after the next line.
    let script = "set -m; \"$@\"; echo stopped $?; read line; fg; exit $?";
    for jail in [&[][..], &["--no-jail"]] {
        for signal in [libc::SIGTSTP, libc::SIGSTOP] {
            let (mut ours, theirs) = pseudo_terminal();
            let mut shell = shell(script, &boot("serial_echo", jail, &theirs), &theirs);
            let mut seen = String::new();
            expect(&mut ours, &mut seen, "ready");
            let supervisor = vm_process(&shell);
            let vm = match jail {
                [] => child_of(supervisor),
                _ => supervisor,
            };
            eventually("it is raw", || !is_canonical(&theirs));
            kill(supervisor, signal);
            expect(&mut ours, &mut seen, &format!("stopped {}", 128 + signal));
            assert_eq!(state(supervisor), 'T');
            // The other signal is none that a process sees.
            if signal == libc::SIGTSTP {
                assert!(is_canonical(&theirs));
                eventually("its VM has stopped", || state(vm) == 'T');
            }
            ours.write_all(b"\n").unwrap();
            eventually("it goes on", || state(supervisor) != 'T');
            goes_on(&mut ours, &theirs, &mut shell);
            // What a shell makes of a terminal whose job was stopped unawares is up to it.
            assert!(is_canonical(&theirs) || signal == libc::SIGSTOP);
        }
    }
}

/// A job in the background of a terminal that stops those which write to it runs all the same, and has the keys when
/// it comes forward.
fn background() {
    let script = "set -m; stty tostop; \"$@\" & read line; fg; exit $?";
    for jail in [&[][..], &["--no-jail"]] {
        let (mut ours, theirs) = pseudo_terminal();
        let mut shell = shell(script, &boot("serial_echo", jail, &theirs), &theirs);
        expect(&mut ours, &mut String::new(), "ready");
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(is_canonical(&theirs), "the terminal is the shell's");
        assert_ne!(state(vm_process(&shell)), 'T');
        ours.write_all(b"\n").unwrap();
        goes_on(&mut ours, &theirs, &mut shell);
        assert!(is_canonical(&theirs));
    }
}

fn deaths() {
    for jail in ["--jail", "--no-jail"] {
        for signal in [libc::SIGUSR2, libc::SIGALRM, libc::SIGSEGV, libc::SIGABRT] {
            let (mut ours, theirs) = pseudo_terminal();
            let mut child = Running::spawn(&mut boot("serial_echo", &[jail], &theirs));
            expect(&mut ours, &mut String::new(), "ready");
            eventually("it is raw", || !is_canonical(&theirs));
            kill(child.id() as i32, signal);
            assert_eq!(child.wait().unwrap().signal(), Some(signal));
            assert!(is_canonical(&theirs), "{jail} {signal}");
        }
    }
}

fn size() {
    let (mut ours, theirs) = pseudo_terminal();
    let size = rustix::termios::Winsize {
        ws_row: 43,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&theirs, size).unwrap();
    let mut child = Running::spawn(&mut boot("pvh_entry", &["--memory", "64M"], &theirs));
    let mut seen = String::new();
    expect(&mut ours, &mut seen, "kvmlet.console=132x43");
    let reading = std::thread::spawn(move || io::copy(&mut ours, &mut io::sink()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(theirs);
    let _ = reading.join();
    // Who has started it sees what.
    assert!(seen.contains("kvmlet: kernel "), "{seen}");
    assert!(seen.contains("64 MiB, 1 vCPU; Ctrl-] ends it"), "{seen}");
}
