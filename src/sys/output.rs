//! Output, and input, whose descriptor may be one that does not wait.

use crate::wait::{self, Slot, Until};
use rustix::io::{Errno, read, write};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

/// Standard output, for who writes a stream.
#[derive(Debug)]
pub struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_whole(rustix::stdio::stdout(), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard input, for who reads one.
#[derive(Debug)]
pub struct StandardInput;

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = rustix::stdio::stdin();
        loop {
            match read(stdin, &mut *buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    wait::one(Slot::readable(stdin), Until::Forever)?;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Writes all of it, and waits for room: a descriptor that others share (a terminal, ssh's pipe) may be non-blocking, which is
/// no error of what is written.
///
/// # Errors
/// The kernel's: `BrokenPipe` where nobody reads any more.
pub fn write_whole(out: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(out, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                wait::one(Slot::writable(out), Until::Forever)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::ioctl_fionbio;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn what_does_not_wait_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        let sent: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        write_whole(writer.as_fd(), &sent).unwrap();
        drop(writer);
        assert!(reading.join().unwrap().unwrap() == sent);
    }

    #[test]
    fn a_reader_that_is_gone_is_told_of() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = write_whole(writer.as_fd(), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
