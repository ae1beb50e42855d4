//! The thread that serves the host's sockets: it accepts programs, hears which port of the guest they want, and connects
//! the guest to programs that listen.
//!
//! It hands streams on and reads no byte of what goes through them. What programs can make it hold is bounded: some that
//! have not said yet what they want.

use super::channel::HostEnd;
use super::socket_file::SocketFile;
use kvmlet_sys::acceptor::{Acceptor, Peers};
use kvmlet_sys::event::Event;
use kvmlet_sys::wait::{self, Slot};
use kvmlet_vmm::devices::virtio::vsock::Question;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Programs that have not said yet what they want; others wait until one of those has had its time.
const MOST_CALLERS: usize = 64;
/// How long one that is silent keeps its place while others want it.
const GRACE: Duration = Duration::from_millis(50);
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line that says so, as Firecracker has it: `CONNECT`, and a port.
const LONGEST_LINE: usize = 32;

/// A program that was accepted.
struct Caller {
    stream: OwnedFd,
    line: Vec<u8>,
    since: Instant,
}

/// What has come of listening to a caller.
enum Heard {
    /// Not all of it.
    More,
    /// It wants that port of the guest.
    Port(u32),
    /// It is gone, or speaks nonsense.
    End,
}

impl Caller {
    /// Reads on, no further than to the end of the line: what is behind it is for the guest.
    fn listen(&mut self) -> Heard {
        let mut bytes = [0; LONGEST_LINE];
        let room = &mut bytes[..LONGEST_LINE - self.line.len()];
        let count = match recv(&self.stream, &mut *room, RecvFlags::PEEK) {
            Err(Errno::AGAIN | Errno::INTR) => return Heard::More,
            Err(_) | Ok((0, _)) => return Heard::End,
            Ok((count, _)) => count,
        };
        let end = room[..count].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(count, |end| end + 1);
        if recv(&self.stream, &mut room[..taken], RecvFlags::empty()) != Ok((taken, taken)) {
            return Heard::End;
        }
        self.line.extend_from_slice(&room[..taken]);
        match end {
            Some(_) => port_of(&self.line).map_or(Heard::End, Heard::Port),
            None if self.line.len() < LONGEST_LINE => Heard::More,
            None => Heard::End,
        }
    }
}

/// The port in `CONNECT PORT`; case does not matter.
fn port_of(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (command, port) = (words.next()?, words.next()?);
    let is_known = command.eq_ignore_ascii_case("connect") && words.next().is_none();
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    (is_known && is_number).then(|| port.parse().ok()).flatten()
}

pub(super) struct Service<'a> {
    pub file: &'a SocketFile,
    pub vm: HostEnd,
    /// Readable when this is to end.
    pub stop: Event,
    callers: Vec<Caller>,
    /// What the VM has asked and could not be told.
    answer: Option<(u64, Option<OwnedFd>)>,
    acceptor: Acceptor,
}

impl<'a> Service<'a> {
    pub fn new(file: &'a SocketFile, vm: HostEnd, stop: Event) -> Self {
        Self {
            file,
            vm,
            stop,
            callers: Vec::new(),
            answer: None,
            acceptor: Acceptor::new(Peers::All),
        }
    }

    /// Serves until it is told to end, or the VM has ended.
    pub fn run(mut self) {
        while let Some(ready) = self.wait() {
            let Ready {
                vm,
                accept,
                callers,
            } = ready;
            if vm && !self.attend_vm() {
                return;
            }
            self.listen(&callers);
            if accept || self.acceptor.due().is_some() {
                self.accept();
            }
        }
    }

    /// Waits for what happens next; none if that is the end.
    fn wait(&mut self) -> Option<Ready> {
        let now = Instant::now();
        self.callers.retain(|caller| now < caller.since + PATIENCE);
        let ends = self.callers.iter().map(|caller| caller.since + PATIENCE);
        let yields = self.first_caller().map(|caller| caller.since + GRACE);
        let yields = yields.filter(|from| self.callers.len() >= MOST_CALLERS && *from > now);
        let accepts = yields.is_none();
        let resumes = self.acceptor.due().filter(|_| accepts);
        let due = ends.chain(resumes).chain(yields).min();
        let vm = match self.answer {
            None => Slot::readable(self.vm.as_fd()),
            Some(_) => Slot::writable(self.vm.as_fd()),
        };
        let listening = match accepts {
            true => self.acceptor.slot(self.file.listener()),
            false => Slot::NOTHING,
        };
        let mut slots = vec![Slot::readable(self.stop.as_fd()), vm, listening];
        let callers = self.callers.iter();
        slots.extend(callers.map(|caller| Slot::readable(caller.stream.as_fd())));
        if let Err(error) = wait::any_of(&mut slots, due.into()) {
            log::debug!("vsock: nothing can be waited for: {error}");
            return None;
        }
        let [stop, vm, accept, callers @ ..] = &slots[..] else {
            return None;
        };
        (!stop.is_ready()).then(|| Ready {
            vm: vm.is_ready(),
            accept: accept.is_ready(),
            callers: callers.iter().map(Slot::is_ready).collect(),
        })
    }

    /// Answers the VM; false if it has ended.
    fn attend_vm(&mut self) -> bool {
        loop {
            if let Some((id, stream)) = &self.answer {
                match self.vm.answer(*id, stream.as_ref().map(AsFd::as_fd)) {
                    Err(error) if is_temporary(&error) => return true,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return false,
                    // Too many descriptors are on their way.
                    Err(_) if stream.is_some() => self.answer = Some((*id, None)),
                    _ => self.answer = None,
                }
                continue;
            }
            match self.vm.receive() {
                Ok(Some(Question { id, port })) => {
                    let stream = self.file.connect_beside(port);
                    if let Err(error) = &stream {
                        log::debug!("vsock: nobody at port {port} of the host: {error}");
                    }
                    self.answer = Some((id, stream.ok()));
                }
                Ok(None) => {}
                Err(error) => return is_temporary(&error),
            }
        }
    }

    /// Hears those who have something to say.
    fn listen(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let vm = &self.vm;
        self.callers.retain_mut(|caller| {
            if ready.next() != Some(&true) {
                return true;
            }
            match caller.listen() {
                Heard::More => true,
                Heard::End => false,
                Heard::Port(port) => {
                    // Whom the VM does not take sees its socket closed.
                    if let Err(error) = vm.connect(port, caller.stream.as_fd()) {
                        log::debug!("vsock: nobody is connected to port {port}: {error}");
                    }
                    false
                }
            }
        });
    }

    /// The one that has been silent for longest: all say at once what they want.
    fn first_caller(&self) -> Option<&Caller> {
        self.callers.first()
    }

    fn accept(&mut self) {
        let late = Instant::now().checked_sub(GRACE);
        let yields = |caller: &Caller| late.is_some_and(|late| caller.since <= late);
        while (self.callers.len() < MOST_CALLERS || self.first_caller().is_some_and(yields))
            && let Some(stream) = self.acceptor.accept(self.file.listener())
        {
            if self.callers.len() >= MOST_CALLERS {
                self.callers.remove(0);
            }
            self.callers.push(Caller {
                stream,
                line: Vec::new(),
                since: Instant::now(),
            });
        }
    }
}

/// Who has something.
struct Ready {
    vm: bool,
    accept: bool,
    callers: Vec<bool>,
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
