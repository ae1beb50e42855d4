//! What PID 1 does while the service runs: it forwards signals and reaps.
//!
//! A signal to PID 1 goes on to the service, but for busybox's two requests to end the guest:
//! SIGUSR2 (`poweroff`) and SIGUSR1 (`halt`). They stop the service as `docker stop` does, with
//! SIGTERM and, ten seconds later, SIGKILL. SIGTERM, busybox's `reboot`, is just forwarded: a
//! service that ends on it ends the guest, and a kvmlet VM ends at a reboot anyway.

use alloc::ffi::CString;
use alloc::format;

use kvmlet_init::exit_code;
use linux_raw_sys::general::{SIGCHLD, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2, WNOHANG};

use crate::read_text;
use crate::sys::{self, Errno, Pid};

/// How long a service may take to end when the guest is powered off from inside.
const STOP_TIMEOUT_S: i64 = 10;

/// Returns the service's exit code when it has ended.
pub fn until_end(service: Pid) -> u8 {
    let mut stopping = false;
    loop {
        let timeout = stopping.then_some(STOP_TIMEOUT_S);
        match sys::wait_for_signal(timeout) {
            Ok(signal) if signal == SIGCHLD as i32 => {
                if let Some(status) = reap(service) {
                    return code_at_end(status, stopping);
                }
            }
            Ok(signal) if signal == SIGUSR1 as i32 || signal == SIGUSR2 as i32 => {
                let last = if ignores_sigterm(service) {
                    SIGKILL
                } else {
                    SIGTERM
                };
                let _ = sys::kill(service, last as i32);
                stopping = true;
            }
            Ok(signal) => {
                // It fails only if the service has just ended, which SIGCHLD tells next.
                let _ = sys::kill(service, signal);
            }
            Err(Errno::EAGAIN) => {
                let _ = sys::kill(service, SIGKILL as i32);
            }
            // Interrupted; all other errors cannot happen.
            Err(_) => {}
        }
    }
}

/// Reaps all that has ended, and returns the service's wait status if it is among them.
fn reap(service: Pid) -> Option<i32> {
    let mut ended = None;
    // Several ends may have sent a single SIGCHLD.
    while let Ok((pid, status)) = sys::wait_any(WNOHANG) {
        if pid == 0 {
            break;
        }
        if pid == service {
            ended = Some(status);
            break;
        }
    }
    ended
}

/// A service that was stopped by us, because the guest was asked to power off, has not failed.
fn code_at_end(status: i32, stopping: bool) -> u8 {
    let signal = status & 0x7f;
    if stopping && (signal == SIGTERM as i32 || signal == SIGKILL as i32) {
        return 0;
    }
    exit_code(status)
}

/// Whether the service would not even notice SIGTERM, as interactive shells don't.
fn ignores_sigterm(service: Pid) -> bool {
    let path = CString::new(format!("/proc/{service}/status")).unwrap_or_default();
    let status = read_text(&path).unwrap_or_default();
    // proc_pid_status(5): a mask in hexadecimal, signal 1 in its lowest bit.
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"));
    let mask = ignored
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0);
    mask & 1 << (SIGTERM - 1) != 0
}
