//! What a process has open.

use super::standard_error;
use rustix::process::{Resource, getrlimit};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes all that this process has open but these, and standard error.
///
/// # Safety
/// Whoever owns one that is closed neither uses nor drops it any more: for a process that was forked, and never returns
/// to what it was forked from.
pub unsafe fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(libc::STDERR_FILENO);
    kept.extend(standard_error::second_descriptor());
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        close(first, fd - 1);
        first = fd + 1;
    }
    close(first, RawFd::MAX);
}

/// Has no program that this process executes from now on inherit what is open here, but the standard streams. Makes
/// system calls and nothing else, so that a process may do it between its fork and its program.
pub fn keep_from_programs() {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: numbers; a flag is set of what is open.
    if unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            RawFd::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    } == 0
    {
        return;
    }
    // Linux before 5.11.
    for fd in first..=last_number() {
        // SAFETY: it sets a flag of a descriptor, if there is one.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// None has a number that is not below the limit.
fn last_number() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    RawFd::try_from(limit).unwrap_or(RawFd::MAX)
}

fn close(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: numbers; the caller's caller vouches for what they mean.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Linux before 5.9 closes one at a time.
    for fd in first..=last.min(last_number()) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn programs_have_the_standard_streams_alone() {
        alone(
            "descriptors::tests::programs_have_the_standard_streams_alone",
            || {
                let stray = rustix::io::dup(std::io::stdin()).unwrap();
                keep_from_programs();
                let script = format!("[ -e /dev/fd/2 ] && [ ! -e /dev/fd/{} ]", stray.as_raw_fd());
                let status = std::process::Command::new("sh")
                    .args(["-c", &script])
                    .status();
                assert!(status.unwrap().success());
            },
        );
    }

    #[test]
    fn what_is_not_kept_is_closed() {
        alone("descriptors::tests::what_is_not_kept_is_closed", || {
            let open = || File::open("/dev/null").unwrap();
            let (first, kept, last) = (open(), open(), open());
            let numbers = [&first, &kept, &last].map(AsRawFd::as_raw_fd);
            // SAFETY: they are forgotten.
            unsafe { close_all_but(&[kept.as_fd()]) };
            std::mem::forget((first, last));
            // SAFETY: it only reads.
            let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
            assert_eq!(numbers.map(is_open), [false, true, false]);
            assert!(is_open(libc::STDERR_FILENO) && !is_open(libc::STDOUT_FILENO));
        });
    }
}
