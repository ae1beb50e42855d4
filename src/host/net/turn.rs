//! One network is chosen at a time in a network namespace, whoever chooses: two owners who looked at the routes at one
//! moment would take the same addresses.

use super::addresses;
use kvmlet_sys::interrupt::Interrupted;
use kvmlet_sys::lock::{self, Patience};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// An abstract name: it is the namespace's, and goes with who has it.
const NAME: &str = "kvmlet/networks";
/// Longer than anybody takes. Who holds the name for fun keeps nobody longer from a start.
const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(1),
    limit: Duration::from_secs(5),
};

/// The turn, until it is dropped.
pub(super) struct Turn(#[expect(dead_code)] Option<OwnedFd>);

impl Turn {
    /// Waits for it, but not longer than anybody takes.
    ///
    /// # Errors
    /// When a signal that ends this process has come meanwhile.
    pub fn take() -> Result<Self, Interrupted> {
        let attempt = || match try_take() {
            Err(Errno::ADDRINUSE) => None,
            other => Some(other),
        };
        let tell = || {
            log::warn!(
                "waiting for {} to choose a network (socket `@{NAME}`)",
                who()
            );
        };
        let taken = lock::wait(PATIENCE, attempt, tell)?;
        Ok(Self(match taken.unwrap_or(Err(Errno::ADDRINUSE)) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::debug!("networks are chosen without a turn: {error}");
                None
            }
        }))
    }
}

fn try_take() -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(
        &socket,
        &SocketAddrUnix::new_abstract_name(NAME.as_bytes())?,
    )?;
    Ok(socket)
}

/// Who has it, if this user may know.
fn who() -> String {
    match addresses::owner_of_name(NAME) {
        Some((pid, name)) => format!("process {pid} ({name})"),
        None => "another process".into(),
    }
}
