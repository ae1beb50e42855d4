//! Locks on files: taken if nobody has them, or waited for, telling for whom. All of them end when the file is closed.

use super::interrupt::{self, Interrupted};
use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why a lock is not had.
#[derive(Debug)]
pub enum Failure {
    /// What the kernel says.
    Io(io::Error),
    /// Somebody has it for longer than anybody should.
    Busy {
        /// Who, as far as that can be told.
        holder: Option<Holder>,
    },
    /// Nobody wants it any more.
    Interrupted(Interrupted),
}

/// A process that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// The name of its program, where that can be told.
    pub name: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// How long a lock is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the user is told what takes so long.
    pub quiet: Duration,
    /// In all.
    pub limit: Duration,
}

/// Locks are held for as long as it takes to read some notes. The longest that one of them takes is what killed VMs
/// have left in cgroups, for whose end five seconds are waited.
pub const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(1),
    limit: Duration::from_secs(30),
};

/// None at all.
pub const AT_ONCE: Patience = Patience {
    quiet: Duration::MAX,
    limit: Duration::ZERO,
};

/// Takes the lock on a file, or a directory, for whoever holds this one open; false where somebody else has it.
///
/// # Errors
/// When it cannot be locked (ENOLCK, ENOSYS on some network file systems).
pub fn try_acquire(file: impl AsFd) -> io::Result<bool> {
    attempt(file, FlockOperation::NonBlockingLockExclusive)
}

/// Takes it together with others who share it; false where somebody has it alone.
///
/// # Errors
/// As [`try_acquire`].
pub fn try_share(file: impl AsFd) -> io::Result<bool> {
    attempt(file, FlockOperation::NonBlockingLockShared)
}

/// Lets go of it, for all who have this one open: a process that was forked meanwhile, too.
///
/// # Errors
/// What the kernel says.
pub fn release(file: impl AsFd) -> io::Result<()> {
    attempt(file, FlockOperation::Unlock).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "this is the one lock")]
fn attempt(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for a lock on a file. Says so in the log if it takes long.
pub fn acquire(file: &File, path: &Path, patience: Patience) -> Result<(), Failure> {
    let attempt = || match try_acquire(file) {
        Ok(false) => None,
        other => Some(other.map(drop)),
    };
    let tell = || {
        let who = holder(file).map_or(String::new(), |holder| format!(", which {holder} has"));
        log::warn!("waiting for the lock `{}`{who}", path.display());
    };
    match wait(patience, attempt, tell).map_err(Failure::Interrupted)? {
        Some(locked) => locked.map_err(Failure::Io),
        // To find the holder takes a look at all locks of the host, and who does not wait asks often.
        None => Err(Failure::Busy {
            holder: (!patience.limit.is_zero()).then(|| holder(file)).flatten(),
        }),
    }
}

/// Tries something again and again that others hold up, and tells of it once if it takes long. `None` where it was not
/// to be had in all that time.
///
/// # Errors
/// When a signal that ends this process has come meanwhile.
pub fn wait<T>(
    patience: Patience,
    mut attempt: impl FnMut() -> Option<T>,
    tell: impl FnOnce(),
) -> Result<Option<T>, Interrupted> {
    let since = Instant::now();
    let mut tell = Some(tell);
    loop {
        if let Some(done) = attempt() {
            return Ok(Some(done));
        }
        let waited = since.elapsed();
        if waited > patience.limit {
            return Ok(None);
        }
        if waited > patience.quiet
            && let Some(tell) = tell.take()
        {
            tell();
        }
        interrupt::check()?;
        std::thread::sleep(pause(waited));
    }
}

/// A blocking flock(2) has no time limit, and a signal to interrupt it would belong to the whole process. So we look
/// again and again: at first often, since locks are held for a millisecond, then rarely, since we may be many.
fn pause(waited: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_micros(100);
    const LONGEST: Duration = Duration::from_millis(20);
    (waited / 8).clamp(SHORTEST, LONGEST)
}

/// Who has the lock, if /proc tells (proc_locks(5)).
fn holder(file: &File) -> Option<Holder> {
    let stat = fstat(file).ok()?;
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let of = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let pid = find(&fs::read_to_string("/proc/locks").ok()?, &of)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some(Holder {
        pid,
        name: name.map(|name| name.trim_end().into()),
    })
}

fn find(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // One that waits has an arrow in front; one whose owner is in another PID namespace has a zero.
        match words[..] {
            [_, "FLOCK", _, _, pid, of, ..] if of == file => {
                pid.parse().ok().filter(|pid| *pid > 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Patience = Patience {
        quiet: Duration::from_millis(5),
        limit: Duration::from_millis(50),
    };

    #[test]
    fn waiting_has_an_end_and_the_holder_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        acquire(&first, &path, SHORT).unwrap();
        let Err(Failure::Busy { holder }) = acquire(&second, &path, SHORT) else {
            panic!("it was held");
        };
        assert_eq!(holder.unwrap().pid, std::process::id());
        drop(first);
        acquire(&second, &path, SHORT).unwrap();
    }

    #[test]
    fn who_lets_go_in_time_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        acquire(&first, &path, SHORT).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                drop(first);
            });
            acquire(&second, &path, PATIENCE).unwrap();
        });
    }

    #[test]
    fn some_can_share_what_nobody_has_alone() {
        let place = tempfile::tempdir().unwrap();
        let open = || File::open(place.path()).unwrap();
        let (first, second, third) = (open(), open(), open());
        assert!(try_share(&first).unwrap() && try_share(&second).unwrap());
        assert!(!try_acquire(&third).unwrap());
        drop((first, second));
        assert!(try_acquire(&third).unwrap());
        assert!(!try_share(open()).unwrap());
    }

    #[test]
    fn holders_are_found_among_those_who_wait() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 08:01:41 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 08:01:42 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 08:01:42 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 08:01:43 0 EOF\n";
        assert_eq!(find(locks, "08:01:42"), Some(9));
        assert_eq!(find(locks, "08:01:43"), None);
        assert_eq!(find(locks, "08:01:44"), None);
    }
}
