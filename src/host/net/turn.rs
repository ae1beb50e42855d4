//! One network is chosen at a time in a network namespace, whoever chooses: two owners who looked at the routes at one
//! moment would take the same addresses.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// An abstract name: it is the namespace's, and goes with who has it.
const NAME: &[u8] = b"kvmlet/networks";
/// Longer than anybody takes. Who holds the name for fun keeps nobody longer from a start.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// The turn, until it is dropped.
pub(super) struct Turn(#[expect(dead_code)] Option<OwnedFd>);

impl Turn {
    /// Waits for it.
    pub fn take() -> Self {
        let since = Instant::now();
        loop {
            match try_take() {
                Err(Errno::ADDRINUSE) if since.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Ok(socket) => return Self(Some(socket)),
                Err(error) => {
                    log::debug!("networks are chosen without a turn: {error}");
                    return Self(None);
                }
            }
        }
    }
}

fn try_take() -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(NAME)?)?;
    Ok(socket)
}
