//! A disk is one writer's, or any number of readers'.
//!
//! Who stands in the way may be about to be gone: a VM that was killed has its disks until the kernel has cleared away its
//! memory and what it was writing. For that it is waited, and for nobody who lives.

use super::{Error, Holder, HostUse};
use kvmlet_sys::byte_lock;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one that is about to be gone may take. A device that hangs takes longer.
const ENDING: Duration = Duration::from_secs(10);
/// How long is waited where it does not show who it is: it may be such a one, gone by now or out of this process's sight.
const UNSEEN: Duration = Duration::from_secs(3);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(5);

/// Takes a disk's lock (an open file description's, fcntl(2)): to write to it, or as one of its readers.
pub(super) fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), Error> {
    let holder = || Holder::of(&file.metadata().ok()?, Some(file.as_raw_fd()));
    let take = || byte_lock::try_lock_all(file, read_only);
    let taken = in_turn(|| Ok(take()?.then_some(())), || Ok::<_, Error>(holder()))?;
    match taken {
        Ok(Ok(())) => Ok(()),
        Ok(Err(by)) => Err(Error::Locked {
            path: path.into(),
            read_only,
            by,
        }),
        Err(error) => {
            // Some network file systems have no locks at all; they have images nevertheless.
            log::warn!(
                "cannot lock disk `{}` against other users: {error}",
                path.display()
            );
            Ok(())
        }
    }
}

/// Opens a block device and claims it for this writer (O_EXCL without O_CREAT, open(2)): locks are of a device's node, of
/// which there can be several, and file systems that are mounted take none. It is `at` one path, and called by another. What
/// cannot be opened at all is left to the caller.
pub(super) fn claim(
    options: &OpenOptions,
    at: &Path,
    path: &Path,
    device: &Metadata,
) -> Result<io::Result<File>, Error> {
    let mut options = options.clone();
    options.custom_flags(libc::O_EXCL);
    let open = || match options.open(at) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        opened => opened.map(Some),
    };
    let holder = || match HostUse::of_device(device, false) {
        Some(by) => Err(Error::HostUse {
            path: path.into(),
            read_only: false,
            by,
        }),
        None => Ok(Holder::of(device, None)),
    };
    match in_turn(open, holder)? {
        Ok(Ok(file)) => Ok(Ok(file)),
        Ok(Err(by)) => Err(Error::Busy {
            path: path.into(),
            by,
        }),
        Err(error) => Ok(Err(error)),
    }
}

/// Attempts it until it is done, as long as who stands in the way is about to be gone, or may be. Returns who that is if it is
/// not done.
fn in_turn<T, E>(
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
    holder: impl Fn() -> Result<Option<Holder>, E>,
) -> Result<io::Result<Result<T, Option<Holder>>>, E> {
    let since = Instant::now();
    loop {
        match attempt() {
            Ok(Some(done)) => return Ok(Ok(Ok(done))),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let by = holder()?;
        let patience = match &by {
            Some(holder) if holder.is_ending() => ENDING,
            Some(holder) if holder.has_lock() => Duration::ZERO,
            _ => UNSEEN,
        };
        if since.elapsed() >= patience {
            return Ok(Ok(Err(by)));
        }
        std::thread::sleep(LOOK);
    }
}
