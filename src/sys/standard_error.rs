//! Standard error, whose reader may stand still: a log is worth less than what it tells of, so nobody waits for it. What
//! has no room is dropped and counted, and that is said as soon as there is room.

use super::wait::{self, Slot, Until};
use crate::thread;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr};
use rustix::termios::isatty;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long the reader of an error may take, which is the last that its user hears.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pipe that has room has it for this many bytes (PIPE_BUF in pipe(7)).
const SURE_BYTES: usize = 4096;

static STREAM: Mutex<Stream> = Mutex::new(Stream {
    way: None,
    dropped_lines: 0,
    is_cut: false,
});

/// Writes text, or drops what there is no room for.
pub fn write(text: &[u8]) {
    lock().put(text, None);
}

/// Writes a line, or drops it.
pub fn say(line: fmt::Arguments<'_>) {
    write(format!("{line}\n").as_bytes());
}

/// Writes text, and gives its reader a second to make room.
pub fn tell(text: &[u8]) {
    lock().put(text, Some(Instant::now() + PATIENCE));
}

/// From now on standard error of this process is such that a write to it never waits for long.
pub fn never_waits() {
    lock().way = Some(Way::Direct);
}

/// It is another file now than when this process, or the one that it was forked from, has written to it.
pub fn is_another() {
    lock().way = None;
}

/// Says what was dropped, if there is room now: this process ends.
pub fn finish() {
    lock().put(b"", None);
}

/// Leaves all standard streams of this process to those who read them: it has `/dev/null` from now on.
///
/// # Errors
/// When there is none.
pub fn leave_streams() -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    lock().way = Some(Way::Direct);
    Ok(())
}

/// The descriptor that it is written to, if it was opened once more.
pub(crate) fn second_descriptor() -> Option<RawFd> {
    match &lock().way {
        Some(Way::Again(fd)) => Some(fd.as_raw_fd()),
        _ => None,
    }
}

fn lock() -> MutexGuard<'static, Stream> {
    thread::lock(&STREAM)
}

/// Standard error for who wants a [`Write`](io::Write): whole messages, one by one. It never fails.
#[derive(Clone, Copy, Debug)]
pub struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        write(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How to write without waiting.
enum Way {
    /// As it is: it does not wait.
    Direct,
    /// By asking for room first. Who shares it may take the room in between, which is seldom.
    Asking,
    /// By opening it once more: whether writing waits belongs to whoever opened it, and others share that.
    Again(OwnedFd),
}

impl Way {
    fn find(fd: BorrowedFd<'_>) -> Self {
        let kind = fstat(fd).map(|found| FileType::from_raw_mode(found.st_mode));
        match kind {
            Ok(FileType::RegularFile) => return Way::Direct,
            Ok(FileType::Fifo) => {}
            _ if isatty(fd) => {}
            _ => return Way::Asking,
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map_or(Way::Asking, Way::Again)
    }
}

struct Stream {
    /// None before it is needed.
    way: Option<Way>,
    dropped_lines: u64,
    /// The last line was written in part.
    is_cut: bool,
}

impl Stream {
    fn put(&mut self, text: &[u8], deadline: Option<Instant>) {
        if self.dropped_lines > 0 {
            let cut = if self.is_cut { "\n" } else { "" };
            let dropped = match self.dropped_lines {
                1 => "1 line was dropped here: nobody read it".to_string(),
                lines => format!("{lines} lines were dropped here: nobody read them"),
            };
            let notice = format!("{cut}kvmlet: {dropped} in time\n");
            if self.put_all(notice.as_bytes(), deadline) < notice.len() {
                self.dropped_lines += lines(text);
                return;
            }
            (self.dropped_lines, self.is_cut) = (0, false);
        }
        let written = self.put_all(text, deadline);
        let rest = &text[written..];
        self.dropped_lines += lines(rest);
        self.is_cut = !rest.is_empty() && written > 0 && text[written - 1] != b'\n';
    }

    /// Writes as much as there is room for until the deadline, and returns how much that was.
    fn put_all(&mut self, text: &[u8], deadline: Option<Instant>) -> usize {
        let mut written = 0;
        while written < text.len() {
            match self.try_put(&text[written..]) {
                Ok(count @ 1..) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if deadline.is_some_and(|at| self.wait(at)) => {}
                _ => break,
            }
        }
        written
    }

    fn try_put(&mut self, text: &[u8]) -> rustix::io::Result<usize> {
        let piece = &text[..text.len().min(SURE_BYTES)];
        match self.way.get_or_insert_with(|| Way::find(stderr())) {
            Way::Direct => rustix::io::write(stderr(), piece),
            Way::Again(fd) => rustix::io::write(fd, piece),
            Way::Asking if has_room(stderr(), Until::Now) => rustix::io::write(stderr(), piece),
            Way::Asking => Err(Errno::AGAIN),
        }
    }

    /// Waits for room; false if none has come by then.
    fn wait(&self, deadline: Instant) -> bool {
        let until = Until::Deadline(deadline);
        match &self.way {
            Some(Way::Again(fd)) => has_room(fd.as_fd(), until),
            _ => has_room(stderr(), until),
        }
    }
}

/// Has it room for some bytes by then? So it has when nobody is left to read.
fn has_room(fd: BorrowedFd<'_>, until: Until) -> bool {
    wait::one(Slot::writable(fd), until).unwrap_or(false)
}

/// Lines, the last of which may have no end.
fn lines(text: &[u8]) -> u64 {
    let ends = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    ends + u64::from(text.last().is_some_and(|byte| *byte != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// The way to a pipe that nobody reads yet, and its reader.
    fn pipe() -> (std::io::PipeReader, Stream) {
        let (reader, writer) = std::io::pipe().unwrap();
        let way = Way::find(writer.as_fd());
        assert!(matches!(way, Way::Again(_)));
        let stream = Stream {
            way: Some(way),
            dropped_lines: 0,
            is_cut: false,
        };
        (reader, stream)
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let (mut reader, mut stream) = pipe();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let since = Instant::now();
        for _ in 0..1000 {
            stream.put(&line, None);
        }
        assert!(since.elapsed() < Duration::from_secs(5));
        let dropped = stream.dropped_lines;
        assert!((900..1000).contains(&dropped), "{dropped}");
        // As long as there is no room it is not said.
        stream.put(b"one\ntwo\n", None);
        assert_eq!(stream.dropped_lines, dropped + 2);
        reader.read_exact(&mut [0; 32 << 10]).unwrap();
        stream.put(b"heard\n", None);
        assert_eq!(stream.dropped_lines, 0);
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let notice = format!(
            "kvmlet: {} lines were dropped here: nobody read them in time",
            dropped + 2
        );
        let last: Vec<&str> = rest.lines().rev().take(2).collect();
        assert_eq!(last, ["heard", &notice]);
    }

    #[test]
    fn a_line_that_was_cut_is_ended() {
        let (mut reader, mut stream) = pipe();
        stream.put(&[b'x'; 100 << 10], None);
        assert!(stream.is_cut && stream.dropped_lines == 1);
        reader.read_exact(&mut [0; 60 << 10]).unwrap();
        stream.put(b"", None);
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("xx\nkvmlet: 1 line was dropped here: nobody read it in time\n"));
    }

    #[test]
    fn who_tells_an_error_waits_for_a_slow_reader_and_not_for_one_that_stands_still() {
        let (mut reader, mut stream) = pipe();
        stream.put(&[b'x'; 1 << 20], None);
        let since = Instant::now();
        let deadline = since + Duration::from_millis(100);
        stream.put(b"error\n", Some(deadline));
        assert!(since.elapsed() >= Duration::from_millis(100));
        assert_eq!(stream.dropped_lines, 2);
        let read = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            rest
        });
        stream.put(b"error\n", Some(Instant::now() + Duration::from_secs(60)));
        drop(stream);
        assert!(
            read.join()
                .unwrap()
                .ends_with("nobody read them in time\nerror\n")
        );
    }

    #[test]
    fn a_reader_that_is_gone_is_no_problem() {
        let (reader, mut stream) = pipe();
        drop(reader);
        stream.put(b"nobody\n", Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(stream.dropped_lines, 1);
    }

    #[test]
    fn each_kind_of_stream_has_its_way() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Way::find(file.as_fd()), Way::Direct));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(Way::find(socket.as_fd()), Way::Asking));
        assert!(has_room(socket.as_fd(), Until::Now));
        socket.set_nonblocking(true).unwrap();
        while rustix::io::write(&socket, &[0; 4096]).is_ok() {}
        assert!(!has_room(socket.as_fd(), Until::Now));
    }
}
