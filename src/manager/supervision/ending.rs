//! Why a VM is to end, as the signal says that asks for it, or why it has.

use kvmlet_sys::signals::Sent;

/// The exit code of kvmlet's own failures.
pub(super) const FAILED: u8 = 125;

/// The signal that asks a supervisor to end its VM because the host goes down: nobody wants the end of the instance, which is
/// started again with the host if its policy says so.
pub const HOST_ENDS: libc::c_int = libc::SIGPWR;

/// That a VM is to end.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    /// The signal that says so.
    pub signal: libc::c_int,
    /// The host goes down, and nobody wants anything of this instance.
    pub host_ends: bool,
}

impl From<libc::c_int> for Ending {
    fn from(signal: libc::c_int) -> Self {
        let host_ends = signal == HOST_ENDS;
        // The program and its VM know the others only.
        let signal = if host_ends { libc::SIGTERM } else { signal };
        Self { signal, host_ends }
    }
}

impl From<Sent> for Ending {
    fn from(sent: Sent) -> Self {
        let ending = Self::from(sent.signal);
        let host_ends = ending.host_ends || sent.is_from_service_manager();
        Self {
            host_ends,
            ..ending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_goes_down_wants_nothing_of_an_instance() {
        let sent = |signal, sender| {
            let Ending { signal, host_ends } = Sent { signal, sender }.into();
            (signal, host_ends)
        };
        let own = std::process::id() as libc::pid_t;
        assert_eq!(sent(libc::SIGINT, own), (libc::SIGINT, false));
        assert_eq!(sent(libc::SIGTERM, 1), (libc::SIGTERM, true));
        assert_eq!(sent(HOST_ENDS, own), (libc::SIGTERM, true));
    }
}
