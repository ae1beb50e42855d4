//! What somebody who is about to be gone still has: a VM that was killed holds its tap, its ports and its addresses until the
//! kernel has cleared away its memory. For that it is waited, and for nobody who lives.

use super::Error;
use super::error::Holder;
use kvmlet_sys::first_thread;
use kvmlet_sys::lock::{self, Patience};
use rustix::process::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// How long one that is about to be gone may take.
const ENDING: Duration = Duration::from_secs(10);
/// How long is waited where it does not show who it is: it may be such a one, gone by now or out of this process's sight.
const UNSEEN: Duration = Duration::from_secs(3);

/// Attempts it until nobody who is about to be gone stands in the way.
///
/// # Errors
/// The last attempt's.
pub(super) fn in_turn<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let since = Instant::now();
    let attempt = || match attempt() {
        Err(error) if since.elapsed() < of(&error) => None,
        done => Some(done),
    };
    let patience = Patience {
        quiet: Duration::from_secs(1),
        limit: Duration::MAX,
    };
    let tell = || log::warn!("waiting for the network of a VM that has ended");
    match lock::wait(patience, attempt, tell)? {
        Some(done) => done,
        None => unreachable!("it is attempted until it is done"),
    }
}

/// How long is waited for who stands in the way.
fn of(error: &Error) -> Duration {
    let known = |pid| match is_ending(pid) {
        true => ENDING,
        false => Duration::ZERO,
    };
    match error {
        Error::TapBusy { name } => holder_of_tap(name).map_or(UNSEEN, known),
        Error::SubnetTaken { by, .. } => known(*by),
        Error::SubnetRouted { is_left: true, .. } => ENDING,
        Error::PortTaken { holder, .. } => match holder {
            Some(Holder::Vm(pid) | Holder::Process(pid, _)) => known(*pid),
            // Root sees all who live.
            None if rustix::process::geteuid().is_root() => UNSEEN,
            None => Duration::ZERO,
        },
        _ => Duration::ZERO,
    }
}

fn is_ending(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(first_thread::is_ending)
}

/// A process that has the tap open, as far as this one may look: one that lives, if any does.
fn holder_of_tap(name: &str) -> Option<u32> {
    // What the kernel says of a tap's descriptor (tun_chr_show_fdinfo).
    let line = format!("iff:\t{name}");
    let has = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo"));
        let mut descriptors = descriptors.into_iter().flatten().flatten();
        descriptors.any(|descriptor| {
            let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
            text.lines().any(|found| found == line)
        })
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has).min_by_key(|pid| is_ending(*pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::eventually;
    use std::cell::Cell;
    use std::process::Command;

    /// How often it is attempted that is in the way four times.
    fn attempts(error: impl Fn() -> Error) -> (bool, u32) {
        let count = Cell::new(0);
        let done = in_turn(|| {
            count.set(count.get() + 1);
            match count.get() > 4 {
                true => Ok(()),
                false => Err(error()),
            }
        });
        (done.is_ok(), count.get())
    }

    fn port_of(pid: u32) -> Error {
        Error::PortTaken {
            mapping: "8080:80".parse().unwrap(),
            holder: Some(Holder::Process(pid, "net-proxy".into())),
            source: std::io::ErrorKind::AddrInUse.into(),
        }
    }

    fn subnet_of(by: u32) -> Error {
        let subnet = "10.107.0.0/30".parse().unwrap();
        Error::SubnetTaken { subnet, by }
    }

    fn routed(is_left: bool) -> Error {
        Error::SubnetRouted {
            subnet: "10.107.0.0/30".parse().unwrap(),
            route: "10.107.0.0/30 on kvmlet0".into(),
            is_left,
        }
    }

    #[test]
    fn who_is_about_to_be_gone_is_waited_for_and_nobody_else() {
        let mut child = Command::new("true").spawn().unwrap();
        let ended = child.id();
        eventually("it has ended", || is_ending(ended));
        let living = std::process::id();
        for (error, expected) in [
            (&port_of as &dyn Fn(u32) -> Error, (true, 5)),
            (&subnet_of, (true, 5)),
        ] {
            assert_eq!(attempts(|| error(ended)), expected);
            assert_eq!(attempts(|| error(living)), (false, 1));
        }
        assert_eq!(attempts(|| routed(true)), (true, 5));
        assert_eq!(attempts(|| routed(false)), (false, 1));
        child.wait().unwrap();
    }

    #[test]
    fn a_tap_that_nobody_is_seen_to_have_is_waited_for() {
        let name = || "no-such-tap".to_string();
        assert_eq!(attempts(|| Error::TapBusy { name: name() }), (true, 5));
    }
}
