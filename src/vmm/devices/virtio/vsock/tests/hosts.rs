//! A host that a test speaks for.

use super::LONG;
use crate::devices::virtio::vsock::{FromHost, HostSide, Question};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

pub struct FakeHost {
    says: Mutex<VecDeque<FromHost>>,
    questions: Mutex<VecDeque<Question>>,
    /// As often as there is something.
    called: EventFd,
    is_gone: AtomicBool,
}

impl FakeHost {
    pub fn new() -> Self {
        Self {
            says: Mutex::default(),
            questions: Mutex::default(),
            called: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_SEMAPHORE).unwrap(),
            is_gone: AtomicBool::new(false),
        }
    }

    pub fn say(&self, what: FromHost) {
        self.says.lock().unwrap().push_back(what);
        self.called.write(1).unwrap();
    }

    /// Says nothing more, and hears nothing.
    pub fn leave(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }

    /// The next question.
    pub fn question(&self) -> Question {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(question) = self.questions.lock().unwrap().pop_front() {
                return question;
            }
            assert!(Instant::now() < deadline, "the host is not asked");
            std::thread::yield_now();
        }
    }

    pub fn is_asked(&self) -> bool {
        !self.questions.lock().unwrap().is_empty()
    }

    /// Answers a question by a stream; returns its other end.
    pub fn answer(&self, id: u64) -> UnixStream {
        let (ours, stream) = stream();
        self.say(FromHost::Connected { id, stream });
        ours
    }

    /// A program wants to be connected.
    pub fn connect(&self, port: u32) -> UnixStream {
        let (ours, stream) = stream();
        self.say(FromHost::Connect { port, stream });
        ours
    }
}

/// A program's end, and the device's.
pub fn stream() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(LONG)).unwrap();
    ours.set_write_timeout(Some(LONG)).unwrap();
    (ours, theirs.into())
}

impl AsFd for FakeHost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the event is borrowed for as long.
        unsafe { BorrowedFd::borrow_raw(self.called.as_raw_fd()) }
    }
}

impl HostSide for FakeHost {
    fn receive(&self) -> io::Result<FromHost> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.called.read()?;
        Ok(self.says.lock().unwrap().pop_front().unwrap())
    }

    fn ask(&self, question: Question) -> io::Result<()> {
        self.questions.lock().unwrap().push_back(question);
        Ok(())
    }
}
