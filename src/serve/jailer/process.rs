//! The process that becomes the program.

use super::Refused;
use super::flags::{Flags, Limits};
use super::made::Made;
use kvmlet_command::firecracker::FIRECRACKER;
use kvmlet_sys::{clock, kin, process};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit, setsid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_no_new_privs};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

/// When this process began, as the program is told.
#[derive(Debug)]
pub struct Started {
    /// By the clock that never stops, in microseconds.
    wanted_us: u64,
    /// CPU time by then.
    cpu_us: u128,
}

impl Started {
    /// Now.
    pub fn now() -> Self {
        Self {
            wanted_us: clock::monotonic_ns(Instant::now()) / 1000,
            cpu_us: clock::process_cpu().as_micros(),
        }
    }
}

/// Closes what is open beside the standard streams. Nobody in this process has opened anything yet.
pub fn close_descriptors() {
    // SAFETY: numbers; nobody owns any of these descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Taps are looked up in this namespace from now on.
pub fn join_network(namespace: &File) -> Result<(), Refused> {
    let joined = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    joined.map_err(|error| {
        Refused::by_host(
            "--netns is not a network namespace that can be joined",
            error,
        )
    })
}

/// Goes on in another process where that is wanted, and writes down which one has it. False where this one does not.
pub fn go_on_elsewhere(flags: &Flags, root: &OwnedFd, made: &mut Made) -> Result<bool, Refused> {
    let no_process = |error| Refused::by_host("the host gives no process", error);
    let mut pid_file = make_pid_file(flags, root, made)?;
    if flags.daemonize {
        let null = openat(
            root,
            "dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let null = null.map_err(|error| Refused::by_host("/dev/null", error))?;
        // The first one has no terminal any more, and the second one can never take one.
        if process::fork_apart(0).map_err(no_process)?.is_some() {
            return Ok(false);
        }
        setsid().map_err(|error| Refused::by_host("no session", error))?;
        if process::fork_apart(0).map_err(no_process)?.is_some() {
            return Ok(false);
        }
        for dup in [
            rustix::stdio::dup2_stdin,
            rustix::stdio::dup2_stdout,
            rustix::stdio::dup2_stderr,
        ] {
            dup(&null).map_err(|error| Refused::by_host("/dev/null", error))?;
        }
    }
    let mut write = |pid: String| {
        let written = pid_file.write_all(pid.as_bytes());
        written.map_err(|error| Refused::by_host("the file with the PID", error))
    };
    if !flags.new_pid_ns {
        write(getpid().as_raw_nonzero().to_string())?;
        return Ok(true);
    }
    // Who leads a session takes it along when it ends.
    let leads = kin::leads_session();
    // Whoever finds the program at work finds the file written.
    let (is_written, mut tell) = io::pipe().map_err(|error| Refused::by_host("a pipe", error))?;
    match process::fork_apart(libc::CLONE_NEWPID).map_err(no_process)? {
        Some(child) => {
            write(child.pid().as_raw_nonzero().to_string())?;
            let told = tell.write_all(&[1]);
            told.map_err(|error| Refused::by_host("a pipe", error))?;
            Ok(false)
        }
        None => {
            drop(tell);
            // Who could not write it tells of that.
            if let Err(_unwritten) = (&is_written).read_exact(&mut [0]) {
                std::process::exit(1);
            }
            if leads {
                setsid().map_err(|error| Refused::by_host("no session", error))?;
            }
            Ok(true)
        }
    }
}

/// The file that says which process has the jail.
fn make_pid_file(flags: &Flags, root: &OwnedFd, made: &mut Made) -> Result<File, Refused> {
    let name = format!("{}.pid", flags.name);
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = openat(root, &*name, new, mode).map_err(io::Error::from);
    let opened = opened.and_then(|file| made.file(root, &name).map(|()| file));
    let opened = opened.map_err(|error| {
        Refused::by_host(
            format!("`{}`", flags.directory().join(&name).display()),
            error,
        )
    });
    Ok(opened?.into())
}

/// Has limits hold for this process, and all that it starts.
pub fn limit(limits: &Limits) -> Result<(), Refused> {
    let set = |resource, most: u64, what: &str| {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)
            .map_err(|error| Refused::by_host(format!("--resource-limit {what}={most}"), error))
    };
    if let Some(bytes) = limits.file_bytes {
        set(Resource::Fsize, bytes, "fsize")?;
    }
    let (mut files, is_said) = limits.open_files();
    if !is_said && let Some(most) = getrlimit(Resource::Nofile).maximum {
        files = files.min(most);
    }
    set(Resource::Nofile, files, "no-file")
}

/// Is another user from now on, in no other group, and can get no rights by executing a program.
pub fn become_user(user: u32, group: u32) -> Result<(), Refused> {
    let check = |result| match result {
        -1 => Err(Refused::by_host(
            format!("cannot become user {user} in group {group}"),
            io::Error::last_os_error(),
        )),
        _ => Ok(()),
    };
    // SAFETY: an empty list, and numbers; there is one thread.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(group, group, group))?;
        check(libc::setresuid(user, user, user))?;
    }
    set_no_new_privs(true).map_err(|error| Refused::by_host("no way to give rights up", error))
}

/// Goes on as the program; returns why not.
pub fn execute(flags: &Flags, started: &Started) -> io::Error {
    let program = flags.program();
    let mut command = Command::new(format!("/{program}"));
    command.env_clear();
    // Where a user has what belongs to a session: root has the same by itself.
    command.env("XDG_RUNTIME_DIR", "/run");
    // By its name it is that already.
    if program != FIRECRACKER {
        command.arg(FIRECRACKER);
    }
    let spent = clock::process_cpu().as_micros();
    command
        .args(["--id", &flags.id])
        .args(["--start-time-us", &started.wanted_us.to_string()])
        .args(["--start-time-cpu-us", &spent.to_string()])
        .args([
            "--parent-cpu-time-us",
            &spent.saturating_sub(started.cpu_us).to_string(),
        ])
        .args(&flags.rest);
    command.exec()
}
