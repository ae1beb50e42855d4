//! Whom a process is related to: its session, its group, who is at the other end of its socket. Each may be in another PID
//! namespace, as a shell is that ran `unshare --pid` or entered a container, and has no number here. The kernel says 0 then,
//! which rustix's `Pid` cannot be: its calls panic, or make one that is not valid.

use rustix::process::{Gid, Pid, Uid, getpid};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Does this process lead its session, so that it would take the session along when it ends?
pub fn leads_session() -> bool {
    // SAFETY: the call takes a number.
    unsafe { libc::getsid(0) == getpid().as_raw_pid() }
}

/// Is this process in the group that the terminal at this descriptor has in its foreground? True where it has none for us:
/// it controls no session of ours, or one of another namespace.
pub fn is_in_foreground(terminal: impl AsFd) -> bool {
    let terminal = terminal.as_fd().as_raw_fd();
    // SAFETY: the calls take a descriptor, which is borrowed, and nothing else.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(terminal), libc::getpgrp()) };
    foreground <= 0 || foreground == own
}

/// Who is at the other end of a socket of a host: who connected, or who listens (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None` if it is in a PID namespace that this process does not see.
    pub process: Option<Pid>,
    /// Its effective user.
    pub uid: Uid,
    /// Its effective group.
    pub gid: Gid,
}

impl Peer {
    /// At the other end of this socket.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut told = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut size = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: a borrowed descriptor, and variables of the sizes that are said.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut told).cast(),
                &raw mut size,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            process: Pid::from_raw(told.pid),
            uid: Uid::from_raw(told.uid),
            gid: Gid::from_raw(told.gid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{alone, end};
    use crate::process::fork_apart;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_is_in_another_namespace_has_no_number() {
        let test = "kin::tests::who_is_in_another_namespace_has_no_number";
        alone(test, || {
            let (mut here, mut there) = UnixStream::pair().unwrap();
            assert_eq!(Peer::of(&here).unwrap().process, Some(getpid()));
            let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWUSER;
            let Some(child) = fork_apart(namespaces).unwrap() else {
                let peer = Peer::of(&there).map(|peer| peer.process);
                let seen = [
                    matches!(peer, Ok(None)),
                    !leads_session(),
                    is_in_foreground(rustix::stdio::stdin()),
                ];
                end(|| there.write_all(&seen.map(u8::from)).unwrap());
            };
            drop(there);
            let mut seen = Vec::new();
            here.read_to_end(&mut seen).unwrap();
            assert_eq!(seen, [1, 1, 1]);
            child.wait().unwrap();
        });
    }
}
