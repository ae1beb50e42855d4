//! The end of networks, which the kernel takes tens of milliseconds for: nobody who waits for a VM waits for that.

use super::{Network, Watch};
use kvmlet_sys::process;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_sys::{descriptors, signals, standard_error};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long the kernel may take until nobody can use rules any more that are gone.
const LINGERING: Duration = Duration::from_millis(200);

/// Takes networks down whose guests are gone. Others may have their addresses and ports at once; rules, and the interfaces
/// themselves, are cleared by a process that outlives this one, which has one thread. Is that killed, the next command does
/// it.
///
/// The sockets of what has looked after their rules are closed there, too: the kernel may make who closes one wait.
pub fn take_down(mut networks: Vec<Network>, watches: Vec<Watch>) {
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
            drop(watches);
            // Now the other process has the last descriptors, and the kernel's work with them.
            drop(leave);
        }
        Ok((None, left, leave)) => {
            std::mem::forget(leave);
            depart(networks, &watches, &left)
        }
        Err(error) => log::debug!("networks are taken down here: {error}"),
    }
}

/// The life of the process that does it.
fn depart(networks: Vec<Network>, watches: &[Watch], left: &OwnedFd) -> ! {
    let begin = || -> io::Result<()> {
        // Whoever ends what the other process belongs to does not end this, and nobody waits for its streams.
        signals::block_all()?;
        let _ = rustix::process::setsid();
        standard_error::leave_streams()?;
        let mut kept: Vec<BorrowedFd<'_>> =
            networks.iter().flat_map(Network::descriptors).collect();
        kept.extend(watches.iter().flat_map(Watch::sockets));
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
        let ways: Vec<_> = networks.into_iter().map(Network::depart).collect();
        // Who closes them while the kernel still has to let go of what they were for waits for that, and whoever changes
        // rules meanwhile waits as well: it has done so long before.
        std::thread::sleep(LINGERING);
        drop(ways);
    }
    process::end(0)
}
