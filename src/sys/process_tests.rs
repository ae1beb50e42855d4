//! Forked processes, and what is known of others.

use super::*;
use crate::alone::alone;

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
