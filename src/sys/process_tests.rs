//! Forked processes, and what is known of others.

use super::*;
use crate::alone::alone;
use std::fs::File;
use std::io::Write;

#[test]
fn a_thread_that_takes_its_time_is_waited_for() {
    use std::cell::Cell;
    // Another thread is seen a dozen times in thirty milliseconds or more, through both ways of waiting.
    let looks = Cell::new(0);
    let since = Instant::now();
    let single = becomes_single(|| {
        looks.set(looks.get() + 1);
        Ok(looks.get() > 10 && since.elapsed() >= Duration::from_millis(30))
    });
    assert!(single.unwrap());
    let error = becomes_single(|| Err(io::Error::from_raw_os_error(libc::ENOENT)));
    assert!(error.is_err());
}

#[test]
fn children_of_any_thread_count() {
    alone("process::tests::children_of_any_thread_count", || {
        let own = || resident_bytes_with_children(std::process::id());
        assert!(own() > 0);
        let mut command = std::process::Command::new("sh");
        // A shell that keeps 64 MiB of text until its input ends.
        command.args([
            "-c",
            "x=$(head -c 67108864 /dev/zero | tr '\\0' x); echo; read x",
        ]);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped());
        std::thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                let mut child = command.spawn().unwrap();
                let mut output = child.stdout.take().unwrap();
                io::Read::read_exact(&mut output, &mut [0]).unwrap();
                assert!(own() > 64 << 20, "{}", own());
                drop(child.stdin.take());
                child.wait().unwrap();
                child.id()
            });
            let gone = spawned.join().unwrap();
            assert_eq!(resident_bytes_with_children(gone), 0);
        });
    });
}

#[test]
fn closed_streams_become_null() {
    alone("process::tests::closed_streams_become_null", || {
        let (read, write) = rustix::pipe::pipe().unwrap();
        // What is open otherwise is not of interest here, and goes with the process.
        let closed = [libc::STDIN_FILENO, libc::STDOUT_FILENO];
        for fd in closed {
            // SAFETY: nobody uses it any more.
            unsafe { libc::close(fd) };
        }
        set_up_streams();
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
