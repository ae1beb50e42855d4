//! The program passt(1), as a process of this one's.

use super::Error;
use super::packet::ETHERNET;
use crate::config::{MacAddress, Subnet};
use kvmlet_sys::descriptors;
use kvmlet_sys::environment;
use kvmlet_sys::process::{self, Child, Ended};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where it is looked for when the caller must not decide.
const DIRECTORIES: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long it may take to begin. It takes some ten milliseconds on an idle host.
const BEGIN: Duration = Duration::from_secs(30);
/// How long it may take to end once nobody is left on its socket.
const END: Duration = Duration::from_secs(1);
/// The least size of a frame, in bytes.
const ARP_FRAME: usize = ETHERNET + 28;
/// What is kept of what it prints, in bytes.
const SAID: usize = 4096;

/// Where passt is, if it is there.
pub fn find() -> Option<PathBuf> {
    let path = environment::variable("PATH").unwrap_or(DIRECTORIES.into());
    let mut places = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    places.find_map(|directory| {
        let program = directory.join("passt");
        (program.is_file() && access(&program, Access::EXEC_OK).is_ok()).then_some(program)
    })
}

/// A passt. It ends with its socket; dropping this waits for that, and sees to it.
pub struct Process {
    child: Option<Child>,
    /// What it prints: it never waits for a reader.
    said: OwnedFd,
}

/// Readable when it has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.child {
            Some(child) => child.as_fd(),
            None => self.said.as_fd(),
        }
    }
}

impl Process {
    /// Starts one, with the other end of its stream of frames. It has that as its standard input and nothing else
    /// that is open here, no variable, and is out of reach of the terminal's signals.
    pub fn start(program: &Path, arguments: &[String]) -> Result<(Self, OwnedFd), Error> {
        let start = || {
            let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
            let (near, far) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
            let (said, says) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let mut command = Command::new(program);
            command.args(arguments).env_clear().current_dir("/");
            command.stdin(far).stdout(Stdio::null()).stderr(says);
            let prepare = || {
                // Whoever called has opened some for this program alone: its instance's lock, say.
                descriptors::keep_from_programs();
                Ok(())
            };
            // SAFETY: it makes system calls, and nothing else.
            unsafe { command.pre_exec(prepare) };
            let child = Some(process::spawn(command.process_group(0))?);
            Ok((Self { child, said }, near))
        };
        start().map_err(|source| Error::Start { source })
    }

    /// Waits until it carries frames, which it shows by an answer to the guest's question where its gateway is. By then it
    /// has the ports that it publishes.
    pub fn await_start(
        &self,
        stream: &OwnedFd,
        guest: MacAddress,
        subnet: Subnet,
    ) -> Result<(), Error> {
        let unfit = |how| Error::Unfit {
            how,
            said: self.said(),
        };
        let answered = || -> io::Result<bool> {
            let flags = SendFlags::NOSIGNAL;
            send(stream, &question(guest, subnet), flags)?;
            let until = Until::after(BEGIN);
            // Clients may be quicker than the answer, and come again.
            while let Some(frame) = receive(stream, until)? {
                if frame.get(12..14) == Some(&[0x08, 0x06]) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        match answered() {
            Ok(true) => Ok(()),
            Ok(false) => Err(unfit("does nothing")),
            Err(error) if ended(&error) => {
                // What it has printed by then is complete.
                let _ = wait::one(Slot::readable(self.as_fd()), Until::after(END));
                Err(unfit("does not start"))
            }
            Err(source) => Err(Error::Start { source }),
        }
    }

    /// What it has printed lately, without what it says of the system's log.
    fn said(&self) -> String {
        let mut bytes = [0; SAID];
        let count = rustix::io::read(&self.said, &mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        let lines = text.lines().map(str::trim).filter(|line| {
            !line.is_empty()
                && !line.starts_with("Failed to send")
                && !line.contains("Don't run as root")
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    /// How it has ended, when it has.
    pub fn ended(mut self) -> String {
        let how = match self.child.take().map(Child::wait) {
            Some(Ok(Ended::Killed(signal))) => format!("was killed by signal {signal}"),
            Some(Err(error)) => format!("is lost: {error}"),
            Some(Ok(Ended::Exited(_))) | None => "has ended".into(),
        };
        match self.said() {
            said if said.is_empty() => how,
            said => format!("{how}: {said}"),
        }
    }

    /// Kills it, as anybody of its user may.
    #[cfg(test)]
    pub fn kill(&self) {
        let child = self.child.iter();
        child.for_each(|child| child.signal(Signal::KILL).unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else {
            return;
        };
        if !wait::one(Slot::readable(child.as_fd()), Until::after(END)).unwrap_or(false) {
            let _ = child.signal(Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// Is it an error of a stream whose other end is gone?
fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// The next frame, and no byte of the one behind it; none if none comes in time.
fn receive(stream: &OwnedFd, until: Until) -> io::Result<Option<Vec<u8>>> {
    let fill = |bytes: &mut [u8]| -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            if !wait::one(Slot::readable(stream.as_fd()), until)? {
                return Ok(false);
            }
            match recv(stream, &mut bytes[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => filled += count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    };
    let mut length = [0; 4];
    if !fill(&mut length)? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > 1 << 17 {
        return Err(io::Error::other("passt speaks another protocol"));
    }
    let mut frame = vec![0; length];
    Ok(fill(&mut frame)?.then_some(frame))
}

/// A guest's question where its gateway is (RFC 826), behind its length.
fn question(guest: MacAddress, subnet: Subnet) -> Vec<u8> {
    let mut frame = (ARP_FRAME as u32).to_be_bytes().to_vec();
    frame.extend([0xff; 6]);
    frame.extend(guest.octets());
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(guest.octets());
    frame.extend(subnet.guest().octets());
    frame.extend([0; 6]);
    frame.extend(subnet.host().octets());
    frame
}
