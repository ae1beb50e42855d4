//! Who holds the host's sockets: the other end of what the device asks and hears.

use kvmlet_vmm::devices::virtio::vsock::{FromHost, HostSide, Question};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the device gets to hear what it is told: only then can a guest answer.
const PATIENCE: Duration = Duration::from_micros(200);

/// What is said either way is in lists; for each entry there is a byte in a socket, so that it is readable and has room as
/// [`HostSide`] wants it.
pub struct Host {
    says: Mutex<VecDeque<FromHost>>,
    questions: Mutex<VecDeque<Question>>,
    device: UnixStream,
}

/// The host's end.
pub struct Speaker {
    host: Arc<Host>,
    /// Until it leaves.
    socket: Option<UnixStream>,
    /// It does not wait until it is heard.
    hasty: bool,
}

impl Host {
    /// One that has room for a few questions only, if it is `narrow`.
    pub fn new(narrow: bool, hasty: bool) -> (Arc<Self>, Speaker) {
        let (device, socket) = pair();
        if narrow {
            let bytes: libc::c_int = 1;
            // SAFETY: the value lives as long as the call, and is as long as it says.
            let result = unsafe {
                libc::setsockopt(
                    device.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_SNDBUF,
                    (&raw const bytes).cast(),
                    size_of_val(&bytes) as libc::socklen_t,
                )
            };
            assert_eq!(result, 0, "a small buffer");
        }
        let host = Arc::new(Self {
            says: Mutex::default(),
            questions: Mutex::default(),
            device,
        });
        let speaker = Speaker {
            host: host.clone(),
            socket: Some(socket),
            hasty,
        };
        (host, speaker)
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl HostSide for Host {
    fn receive(&self) -> io::Result<FromHost> {
        let mut byte = [0];
        match (&self.device).read(&mut byte)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(lock(&self.says).pop_front().expect("a byte for each")),
        }
    }

    fn ask(&self, question: Question) -> io::Result<()> {
        let mut questions = lock(&self.questions);
        (&self.device).write_all(&[0])?;
        questions.push_back(question);
        Ok(())
    }
}

impl Speaker {
    /// Tells the device something; false if it is gone, or the device does not listen.
    pub fn say(&self, what: FromHost) -> bool {
        let mut says = lock(&self.host.says);
        let said = (self.socket.as_ref()).is_some_and(|mut socket| socket.write_all(&[0]).is_ok());
        if said {
            says.push_back(what);
        }
        drop(says);
        if said && !self.hasty {
            let since = Instant::now();
            while !lock(&self.host.says).is_empty() && since.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
        said
    }

    /// The next question that was not answered.
    pub fn question(&self) -> Option<Question> {
        let mut questions = lock(&self.host.questions);
        let mut socket = self.socket.as_ref()?;
        (socket.read(&mut [0]).ok()? > 0).then(|| questions.pop_front().expect("a byte for each"))
    }

    /// Says nothing more, and hears nothing.
    pub fn leave(&mut self) {
        self.socket = None;
    }

    /// Takes back what the device has not heard.
    pub fn forget(&self) {
        lock(&self.host.says).clear();
    }
}

/// A stream for the device, and the program's end.
pub fn stream() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = pair();
    (ours, theirs.into())
}

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    for end in [&one, &other] {
        end.set_nonblocking(true)
            .expect("a socket that does not wait");
    }
    (one, other)
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
