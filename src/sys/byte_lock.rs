//! Locks on single bytes of a file, or on all of it, which belong to whoever opened it (open file description locks,
//! fcntl_locking(2)).
//!
//! They end when the file is closed, however that comes. Unlike flock(2)'s it can be asked whether there is one without
//! taking it, and one can be waited for while another byte is left alone.

use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A length, and not of any file's.
const TO_THE_END: i64 = 0;

/// Takes the lock of a byte for this open file alone; false if somebody has it. The file is open for writing.
///
/// # Errors
/// What the kernel says.
pub fn try_lock(file: &File, byte: u64) -> io::Result<bool> {
    taken(call(file, libc::F_OFD_SETLK, libc::F_WRLCK, byte))
}

/// Takes the lock of all bytes, wherever the file's end will be, alone or to read what others read as well; false if
/// somebody has another one. Other programs that use disk images look at it.
///
/// # Errors
/// When it cannot be locked: some network file systems have no locks.
pub fn try_lock_all(file: &File, to_read: bool) -> io::Result<bool> {
    let kind = if to_read {
        libc::F_RDLCK
    } else {
        libc::F_WRLCK
    };
    taken(lock(file, libc::F_OFD_SETLK, kind, 0, TO_THE_END))
}

fn taken(result: rustix::io::Result<libc::flock>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock of a byte back.
///
/// # Errors
/// What the kernel says.
pub fn unlock(file: &File, byte: u64) -> io::Result<()> {
    call(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte)?;
    Ok(())
}

/// Gives all locks of this open file back, also those that a copy of its descriptor in another process would keep.
///
/// # Errors
/// What the kernel says.
pub fn unlock_all(file: &File) -> io::Result<()> {
    lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, 0, TO_THE_END)?;
    Ok(())
}

/// Has another open file the lock of a byte?
///
/// # Errors
/// What the kernel says.
pub fn is_locked(file: &File, byte: u64) -> io::Result<bool> {
    let found = call(file, libc::F_OFD_GETLK, libc::F_RDLCK, byte)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

/// Takes the lock of a byte for this open file alone, and waits for that, however long. The file is open for writing.
///
/// # Errors
/// What the kernel says.
pub fn lock_in_turn(file: &File, byte: u64) -> io::Result<()> {
    loop {
        match call(file, libc::F_OFD_SETLKW, libc::F_WRLCK, byte) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits, however long, until nobody has the lock of a byte.
///
/// # Errors
/// What the kernel says.
pub fn wait_until_free(file: &File, byte: u64) -> io::Result<()> {
    loop {
        match call(file, libc::F_OFD_SETLKW, libc::F_RDLCK, byte) {
            Ok(_) => return unlock(file, byte),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn call(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    byte: u64,
) -> rustix::io::Result<libc::flock> {
    lock(file, command, kind, byte, 1)
}

fn lock(
    file: &File,
    command: libc::c_int,
    kind: libc::c_int,
    start: u64,
    bytes: i64,
) -> rustix::io::Result<libc::flock> {
    let mut lock = libc::flock {
        // The constants are small.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(start).map_err(|_| Errno::INVAL)?,
        l_len: bytes,
        l_pid: 0,
    };
    // SAFETY: the structure outlives the call, which fills it in at most.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        _ => Ok(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn bytes_are_locked_one_by_one() {
        let place = tempfile::tempdir().unwrap();
        let open = || {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            options.open(place.path().join("lock")).unwrap()
        };
        let (first, second) = (open(), open());
        assert!(try_lock(&first, 0).unwrap());
        assert!(try_lock(&first, 0).unwrap(), "it is ours already");
        assert!(!try_lock(&second, 0).unwrap());
        assert!(is_locked(&second, 0).unwrap());
        assert!(!is_locked(&first, 0).unwrap(), "one's own is none");
        assert!(try_lock(&second, 1).unwrap());
        unlock(&first, 0).unwrap();
        assert!(!is_locked(&second, 0).unwrap());
        // Asking takes nothing, and who only reads may ask.
        let reader = File::open(place.path().join("lock")).unwrap();
        assert!(is_locked(&reader, 1).unwrap());
        assert!(!is_locked(&reader, 7).unwrap());
        drop(second);
        assert!(!is_locked(&reader, 1).unwrap());
        assert!(is_locked(&reader, u64::MAX).is_err());
    }

    #[test]
    fn content_is_for_readers_or_one_writer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || {
            let mut both = File::options();
            both.read(true).write(true).open(file.path()).unwrap()
        };
        let (first, second, third) = (open(), open(), open());
        assert!(try_lock_all(&first, true).unwrap());
        assert!(try_lock_all(&second, true).unwrap());
        assert!(!try_lock_all(&third, false).unwrap());
        drop((first, second));
        assert!(try_lock_all(&third, false).unwrap());
        assert!(is_locked(&open(), 7).unwrap());
        let copy = third.try_clone().unwrap();
        unlock_all(&third).unwrap();
        assert!(!is_locked(&open(), 7).unwrap());
        drop(copy);
    }

    #[test]
    fn the_end_of_a_lock_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let (held, waiter) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        assert!(try_lock(&held, 3).unwrap());
        let since = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                drop(held);
            });
            wait_until_free(&waiter, 3).unwrap();
        });
        assert!(since.elapsed() >= Duration::from_millis(30));
        // Nothing is left of it for others.
        let next = File::create(&path).unwrap();
        assert!(try_lock(&next, 3).unwrap());
        let mine = File::create(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                drop(next);
            });
            lock_in_turn(&mine, 3).unwrap();
        });
        assert!(!try_lock(&File::create(&path).unwrap(), 3).unwrap());
    }
}
