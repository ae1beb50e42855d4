//! Standard input and outputs of a process that begins.

/// Makes standard input and outputs safe to use: where one is closed, the next file that is opened would take its
/// number, so it becomes `/dev/null`; and a pipe that nobody reads, or a file that must not grow (RLIMIT_FSIZE), is an
/// error of who writes to it, not its end.
pub fn set_up() {
    for fd in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: F_GETFD only reads; the path ends with a zero, and the lowest free number is this one.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    // SAFETY: there is no handler to be called.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// [The same](set_up) for a command, to whose standard output somebody may want to be written: where that is closed, writing there fails,
/// here and in whatever is executed.
pub fn set_up_of_command() {
    // SAFETY: as below; what is below its number is open then.
    unsafe {
        for (fd, access) in [
            (libc::STDIN_FILENO, libc::O_RDWR),
            (libc::STDOUT_FILENO, libc::O_RDONLY),
        ] {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), access);
            }
        }
    }
    set_up();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn what_a_command_writes_to_a_closed_output_fails() {
        let test = "streams::tests::what_a_command_writes_to_a_closed_output_fails";
        alone(test, || {
            // SAFETY: nobody uses it any more.
            unsafe { libc::close(libc::STDOUT_FILENO) };
            set_up_of_command();
            let out = rustix::stdio::stdout();
            assert_eq!(rustix::io::write(out, b"x"), Err(rustix::io::Errno::BADF));
            let next = File::open("/proc/self/stat").unwrap();
            assert!(next.as_raw_fd() > libc::STDERR_FILENO);
        });
    }

    #[test]
    fn closed_streams_become_null() {
        alone("streams::tests::closed_streams_become_null", || {
            let (read, write) = rustix::pipe::pipe().unwrap();
            // What is open otherwise is not of interest here, and goes with the process.
            let closed = [libc::STDIN_FILENO, libc::STDOUT_FILENO];
            for fd in closed {
                // SAFETY: nobody uses it any more.
                unsafe { libc::close(fd) };
            }
            set_up();
            let next = File::open("/proc/self/stat").unwrap();
            assert!(next.as_raw_fd() > libc::STDERR_FILENO);
            for fd in closed {
                let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
                assert_eq!(target.to_str(), Some("/dev/null"));
            }
            drop(read);
            let error = File::from(write).write_all(b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
