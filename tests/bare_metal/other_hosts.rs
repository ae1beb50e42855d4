//! VMs in their jail on hosts that make other system calls of the same code.

use crate::cli::{Running, kill, kvmlet, vm_process_if_any};
use crate::harness::{Test, patience::eventually};
use crate::virtio::{BLK, image};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("a_clock_without_vdso_is_read", no_vdso),
    ("a_vm_that_was_stopped_goes_on", stopped),
];

/// Entries of the auxiliary vector (getauxval(3), linux/auxvec.h).
const AT_NULL: u64 = 0;
const AT_IGNORE: u64 = 1;
const AT_SYSINFO_EHDR: u64 = 33;

/// Starts a program that finds no vDSO, as where the host's clock cannot be read without a system call. `execs` is how
/// many programs the process becomes on the way.
fn spawn_without_vdso(mut command: Command, execs: u32) -> Running {
    let trace_me = || {
        // SAFETY: only asks the thread that has forked this process to trace it.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: a system call between fork and exec.
    unsafe { command.pre_exec(trace_me) };
    let child = Running::spawn(&mut command);
    let process = child.id() as i32;
    for exec in 1..=execs {
        let mut status = 0;
        // SAFETY: stores a number.
        let stopped = unsafe { libc::waitpid(process, &mut status, 0) };
        assert_eq!((stopped, libc::WIFSTOPPED(status)), (process, true));
        hide_vdso(process);
        let next = match exec < execs {
            true => libc::PTRACE_CONT,
            false => libc::PTRACE_DETACH,
        };
        // SAFETY: the process is ours and stopped.
        assert_eq!(unsafe { libc::ptrace(next, process, 0, 0) }, 0);
    }
    child
}

/// Takes the vDSO's address from what a program that is about to begin is told. It is stopped, and its stack begins
/// with a count, arguments, the environment and the vector, each list with a zero at its end.
fn hide_vdso(process: i32) {
    // SAFETY: the structure has the size that is stored; the process is stopped.
    let stack = unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let got = libc::ptrace(libc::PTRACE_GETREGS, process, 0, &raw mut registers);
        assert_eq!(got, 0);
        registers.rsp
    };
    // SAFETY: reads a word of the process.
    let word = |at: u64| unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, process, at, 0) } as u64;
    let mut at = stack + 8;
    for _ in ["arguments", "environment"] {
        while word(at) != 0 {
            at += 8;
        }
        at += 8;
    }
    while word(at) != AT_SYSINFO_EHDR {
        assert_ne!(word(at), AT_NULL, "there is no vDSO to hide");
        at += 16;
    }
    // SAFETY: writes a word of the process.
    let written = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, process, at, AT_IGNORE) };
    assert_eq!(written, 0);
}

fn no_vdso() {
    let image = image();
    let disk = format!("{},iops=20,iops-burst=1", image.path().to_str().unwrap());
    let disk = ["--cmdline", BLK, "--disk", &disk];
    let balloon = ["--memory", "64M", "--balloon", "size=8M"];
    let balloon = [&balloon[..], &["--cmdline", "mmio=0xd0002000 pages=8192"]].concat();
    for (guest, arguments) in [
        ("ready", &[][..]),
        ("virtio_blk", &disk),
        ("virtio_balloon", &balloon),
    ] {
        let mut command = kvmlet(guest);
        command.args(["--jail"]).args(arguments);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn_without_vdso(command, 1);
        child.stdin.take().unwrap().write_all(b"trq").unwrap();
        let mut said = String::new();
        let stderr = child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{guest}: {said}");
    }
}

fn stopped() {
    let image = image();
    let disk = format!("{},iops=20,iops-burst=1", image.path().to_str().unwrap());
    let mut command = kvmlet("virtio_blk");
    command.args(["--jail", "--cmdline", BLK, "--disk", &disk]);
    let mut child = Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut vm = None;
    eventually("its VM runs", || {
        vm = vm_process_if_any(&child);
        vm.is_some()
    });
    let vm = vm.unwrap();
    let mut stops = 0;
    while child.try_wait().unwrap().is_none() {
        stops += 1;
        kill(vm, libc::SIGSTOP);
        kill(vm, libc::SIGCONT);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut said = String::new();
    let stderr = child.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(stops > 10, "{stops}");
}
