//! What PID 1 does while the service runs: it forwards signals and reaps.
//!
//! A signal to PID 1 goes on to the service, but for requests to end the guest: SIGPWR, which the kernel
//! sends for the power button, and busybox's SIGUSR2 (`poweroff`) and SIGUSR1 (`halt`). They stop the
//! service as `docker stop` does, with SIGTERM and, when its time is up, SIGKILL. SIGTERM, busybox's
//! `reboot`, is just forwarded: a service that ends on it ends the guest, and a kvmlet VM ends at a
//! reboot anyway.

use alloc::ffi::CString;
use alloc::format;

use kvmlet_contract::exit_code;
use linux_raw_sys::general::{
    SIGCHLD, SIGCONT, SIGKILL, SIGPWR, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
    WNOHANG, WUNTRACED,
};

use crate::read_text;
use crate::sys::{self, Pid};

/// How long a service may take to end that was killed: a disk that does not answer keeps it for ever.
const END_OF_KILLED_MS: u64 = 5000;

/// The low byte of the wait status of a process that was stopped, whose second one is the signal (wait(2)).
const STOPPED: i32 = 0x7f;

/// A service that is being stopped.
pub struct Stopping {
    /// By the host's wish, who hears how the service has ended. Whoever is inside and powers off means
    /// that its end is no failure.
    by_host: bool,
    /// When its time is up. No signal that comes meanwhile moves it.
    deadline_ms: u64,
    killed: bool,
}

impl Stopping {
    /// Sends `signal`, and has `timeout_ms` run from now; a service that ignores the signal is killed at once.
    pub fn begin(service: Pid, by_host: bool, signal: u8, timeout_ms: u64) -> Self {
        let mut stopping = Self {
            by_host,
            deadline_ms: sys::monotonic_ms() + timeout_ms,
            killed: false,
        };
        if ignores(service, signal) {
            stopping.kill(service);
        } else {
            let _ = sys::kill(service, signal.into());
        }
        stopping
    }

    /// Whether it was sent SIGKILL.
    pub fn killed(&self) -> bool {
        self.killed
    }

    /// Ends it.
    pub fn kill(&mut self, service: Pid) {
        // It fails only if the service has just ended, which SIGCHLD tells next.
        let _ = sys::kill(service, SIGKILL as i32);
        self.killed = true;
        self.deadline_ms = sys::monotonic_ms() + END_OF_KILLED_MS;
    }

    /// Until its time is up.
    pub fn left_ms(&self) -> u64 {
        self.deadline_ms.saturating_sub(sys::monotonic_ms())
    }

    /// Whether an end with this status is no failure: somebody inside has powered the guest off.
    pub fn forgives(&self, status: i32) -> bool {
        let signal = (status & 0x7f) as u32;
        !self.by_host && (signal == SIGTERM || signal == SIGKILL)
    }
}

/// Returns the service's exit code when it has ended. It has `timeout_ms` for that once it is to.
pub fn until_end(service: Pid, timeout_ms: u64) -> u8 {
    let mut stopping: Option<Stopping> = None;
    loop {
        let left = stopping.as_ref().map(Stopping::left_ms);
        if let (Some(stop), Some(0)) = (&mut stopping, left) {
            if stop.killed {
                return code_at_end(SIGKILL as i32, Some(stop));
            }
            stop.kill(service);
            continue;
        }
        match sys::wait_for_signal(left) {
            Ok(signal) if signal == SIGCHLD as i32 => {
                if let Some(status) = reap(service) {
                    return code_at_end(status, stopping.as_ref());
                }
            }
            Ok(signal) if [SIGPWR, SIGUSR1, SIGUSR2].contains(&(signal as u32)) => {
                let by_host = signal == SIGPWR as i32;
                stopping.get_or_insert_with(|| {
                    Stopping::begin(service, by_host, SIGTERM as u8, timeout_ms)
                });
            }
            Ok(signal) => {
                // It fails only if the service has just ended, which SIGCHLD tells next.
                let _ = sys::kill(service, signal);
            }
            // The time is up, or the wait was interrupted.
            Err(_) => {}
        }
    }
}

/// Reaps all that has ended, and returns the service's wait status if it is among them.
fn reap(service: Pid) -> Option<i32> {
    let mut ended = None;
    each_ended(Some(service), &mut |pid, status| {
        if pid == service {
            ended = Some(status);
        }
    });
    ended
}

/// Reaps all that has ended, and hands out each process with its wait status.
pub fn each_ended(service: Option<Pid>, see: &mut dyn FnMut(Pid, i32)) {
    // Several ends may have sent a single SIGCHLD.
    while let Ok((pid, status)) = sys::wait_any(WNOHANG | WUNTRACED) {
        if pid == 0 {
            break;
        }
        if status & 0xff != STOPPED {
            see(pid, status);
            continue;
        }
        // Ctrl-Z is for a shell's jobs. This one has no shell to continue it; who sends SIGSTOP will.
        let by_terminal = [SIGTSTP, SIGTTIN, SIGTTOU].contains(&((status >> 8) as u32));
        if Some(pid) == service && by_terminal {
            let _ = sys::kill(-pid, SIGCONT as i32);
        }
    }
}

/// A service that was stopped because somebody inside has powered the guest off has not failed.
fn code_at_end(status: i32, stopping: Option<&Stopping>) -> u8 {
    if stopping.is_some_and(|stopping| stopping.forgives(status)) {
        return 0;
    }
    exit_code(status)
}

/// Whether the service would not even notice the signal, as interactive shells don't notice SIGTERM.
fn ignores(service: Pid, signal: u8) -> bool {
    let path = CString::new(format!("/proc/{service}/status")).unwrap_or_default();
    let status = read_text(&path).unwrap_or_default();
    // proc_pid_status(5): a mask in hexadecimal, signal 1 in its lowest bit.
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"));
    let mask = ignored
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0);
    mask & 1 << (signal - 1) != 0
}
