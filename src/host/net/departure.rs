//! The end of networks, which the kernel takes tens of milliseconds for: nobody who waits for a VM waits for that.

use super::Network;
use kvmlet_sys::process;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_sys::{descriptors, signals, standard_error};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Takes networks down whose guests are gone. Others may have their addresses and ports at once; rules, and the interfaces
/// themselves, are cleared by a process that outlives this one, which has one thread. Is that killed, the next command does
/// it.
pub fn take_down(mut networks: Vec<Network>) {
    // A tap of somebody else's stays, and is free at once.
    networks.retain(|network| network.made.is_some());
    networks.iter_mut().for_each(Network::let_go);
    // Where this process is its namespace's first, all others end with it.
    if networks.is_empty() || rustix::process::getpid() == rustix::process::Pid::INIT {
        return;
    }
    let fork = || -> io::Result<_> {
        let (left, leave) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((process::fork_apart(0)?, left, leave))
    };
    match fork() {
        Ok((Some(_), _, leave)) => {
            networks.into_iter().for_each(Network::abandon);
            // Now the other process has the last descriptors, and the kernel's work with them.
            drop(leave);
        }
        Ok((None, left, leave)) => {
            std::mem::forget(leave);
            depart(networks, &left)
        }
        Err(error) => log::debug!("networks are taken down here: {error}"),
    }
}

/// The life of the process that does it.
fn depart(networks: Vec<Network>, left: &OwnedFd) -> ! {
    let begin = || -> io::Result<()> {
        // Whoever ends what the other process belongs to does not end this, and nobody waits for its streams.
        signals::block_all()?;
        let _ = rustix::process::setsid();
        standard_error::leave_streams()?;
        let mut kept: Vec<BorrowedFd<'_>> =
            networks.iter().flat_map(Network::descriptors).collect();
        kept.extend([
            left.as_fd(),
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
        ]);
        // SAFETY: what else this process has is not dropped, since it never returns.
        unsafe { descriptors::close_all_but(&kept) };
        let _ = rustix::thread::set_name(c"net-departure");
        wait::one(Slot::readable(left.as_fd()), Until::Forever)?;
        Ok(())
    };
    if begin().is_ok() {
        networks.into_iter().for_each(Network::depart);
    }
    process::end(0)
}
