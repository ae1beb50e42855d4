//! Accepting at a socket that is waited for with others.
//!
//! A process that has no number left for one more socket is told so at once, each time, and the socket stays readable: a
//! loop that only waits and accepts would take all of a CPU. So nobody is accepted for a while then.

use crate::kin::Peer;
use crate::wait::Slot;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::geteuid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long nobody is accepted where this process has no number left for a socket.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Whoever the socket's file lets connect.
    All,
    /// Processes of this one's user, and root's.
    OwnUser,
}

/// How a Unix socket that listens is accepted at. The socket itself is somebody else's, and does not wait.
#[derive(Debug)]
pub struct Acceptor {
    peers: Peers,
    /// Nobody is accepted before.
    resumes: Option<Instant>,
}

impl Acceptor {
    /// Accepts these.
    pub const fn new(peers: Peers) -> Self {
        Self {
            peers,
            resumes: None,
        }
    }

    /// What is to be waited for: nothing while it pauses.
    pub fn slot<'fd>(&self, socket: BorrowedFd<'fd>) -> Slot<'fd> {
        match self.due() {
            Some(_) => Slot::NOTHING,
            None => Slot::readable(socket),
        }
    }

    /// When it goes on, if it pauses: [`accept`](Self::accept) is to be called then.
    pub fn due(&self) -> Option<Instant> {
        self.resumes
    }

    /// Who has connected, if somebody has and may. The stream does not wait, either.
    pub fn accept(&mut self, socket: BorrowedFd<'_>) -> Option<OwnedFd> {
        if self.resumes.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.resumes = None;
        loop {
            match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) if self.peers == Peers::All || is_own(stream.as_fd()) => {
                    return Some(stream);
                }
                Ok(_) => log::info!("a process of another user has connected, and is not heard"),
                Err(Errno::AGAIN) => return None,
                // It went before it was accepted.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    log::debug!("nobody can be accepted for {PAUSE:?}: {error}");
                    self.resumes = Some(Instant::now() + PAUSE);
                    return None;
                }
            }
        }
    }
}

/// Is it of this process's user, or root?
fn is_own(stream: BorrowedFd<'_>) -> bool {
    Peer::of(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::wait::{self, Until};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn listener() -> (tempfile::TempDir, UnixListener) {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        (place, listener)
    }

    #[test]
    fn who_cannot_be_accepted_is_not_tried_without_end() {
        let (place, listener) = listener();
        let test = "acceptor::tests::who_cannot_be_accepted_is_not_tried_without_end";
        alone(test, || {
            let mut acceptor = Acceptor::new(Peers::OwnUser);
            let _waiting = UnixStream::connect(place.path().join("s")).unwrap();
            let none = libc::rlimit {
                // What poll(2) takes is bounded by it, too.
                rlim_cur: 1,
                rlim_max: 100,
            };
            // SAFETY: reads a structure; it is a process of its own whose limit this is.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
            assert!(acceptor.accept(listener.as_fd()).is_none());
            let due = acceptor.due().unwrap();
            let waits = |acceptor: &Acceptor, until| {
                !wait::one(acceptor.slot(listener.as_fd()), until).unwrap()
            };
            assert!(waits(&acceptor, Until::Deadline(due)));
            assert!(Instant::now() >= due);
            let some = libc::rlimit {
                rlim_cur: 100,
                rlim_max: 100,
            };
            // SAFETY: as before.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &some) }, 0);
            assert!(acceptor.accept(listener.as_fd()).is_some());
            assert_eq!(acceptor.due(), None);
            assert!(!waits(&acceptor, Until::Now) || acceptor.accept(listener.as_fd()).is_none());
        });
    }

    #[test]
    fn other_users_are_closed() {
        if !geteuid().is_root() {
            return println!("SKIPPED: only root can be another user");
        }
        let (place, listener) = listener();
        for (path, mode) in [(place.path(), 0o755), (&place.path().join("s"), 0o666)] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        }
        let path = place.path().join("s");
        let connect = std::thread::spawn(move || {
            // SAFETY: numbers; the system call changes the user of this thread alone.
            unsafe { libc::syscall(libc::SYS_setresuid, 12345, 12345, 12345) };
            UnixStream::connect(&path).unwrap()
        });
        let _stranger = connect.join().unwrap();
        assert!(
            Acceptor::new(Peers::OwnUser)
                .accept(listener.as_fd())
                .is_none()
        );
        let _own = UnixStream::connect(place.path().join("s")).unwrap();
        assert!(
            Acceptor::new(Peers::OwnUser)
                .accept(listener.as_fd())
                .is_some()
        );
    }
}
