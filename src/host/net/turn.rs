//! One network is chosen at a time in a network namespace, whoever chooses: two owners who looked at the routes at one
//! moment would take the same addresses.

use super::addresses;
use crate::host::interrupt::{self, Interrupted};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// An abstract name: it is the namespace's, and goes with who has it.
const NAME: &str = "kvmlet/networks";
/// Longer than anybody takes. Who holds the name for fun keeps nobody longer from a start.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until the user is told what takes so long.
const QUIET: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// The turn, until it is dropped.
pub(super) struct Turn(#[expect(dead_code)] Option<OwnedFd>);

impl Turn {
    /// Waits for it, but not longer than anybody takes.
    ///
    /// # Errors
    /// When a signal that ends this process has come meanwhile.
    pub fn take() -> Result<Self, Interrupted> {
        let since = Instant::now();
        let mut told = false;
        loop {
            match try_take() {
                Err(Errno::ADDRINUSE) if since.elapsed() < PATIENCE => {
                    if since.elapsed() > QUIET && !std::mem::replace(&mut told, true) {
                        log::warn!(
                            "waiting for {} to choose a network (socket `@{NAME}`)",
                            who()
                        );
                    }
                    interrupt::check()?;
                    std::thread::sleep(PAUSE);
                }
                Ok(socket) => return Ok(Self(Some(socket))),
                Err(error) => {
                    log::debug!("networks are chosen without a turn: {error}");
                    return Ok(Self(None));
                }
            }
        }
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
