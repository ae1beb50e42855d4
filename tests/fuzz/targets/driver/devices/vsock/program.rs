//! A program of the host that is connected to the guest, or wants to be.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Ports of the host that connections of its programs have.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = u32::MAX >> 1;
/// No greeting is longer: `OK `, ten digits, and a newline.
const GREETING_BYTES: usize = 14;

pub struct Program {
    stream: UnixStream,
    /// It takes what it is sent.
    reads: bool,
    /// What it has heard first, as far as it is told that it is connected.
    greeting: Option<Vec<u8>>,
}

impl Program {
    /// One that wants to be connected to the guest, and is told when it is.
    pub fn wanting(stream: UnixStream, reads: bool) -> Self {
        Self {
            stream,
            reads,
            greeting: Some(Vec::new()),
        }
    }

    /// One that the guest wants to be connected to.
    pub fn wanted(stream: UnixStream, reads: bool) -> Self {
        Self {
            stream,
            reads,
            greeting: None,
        }
    }

    pub fn toggle(&mut self) {
        self.reads = !self.reads;
    }

    pub fn write(&mut self, bytes: usize) {
        const DATA: [u8; 1 << 18] = [b'd'; 1 << 18];
        // It may be full, or closed.
        let _ = self.stream.write(&DATA[..bytes.min(DATA.len())]);
    }

    pub fn shut(&mut self, how: Shutdown) {
        let _ = self.stream.shutdown(how);
        // The rest of a greeting need not come any more.
        self.greeting = None;
    }

    /// Takes what it was sent, if it does that.
    pub fn look(&mut self) {
        if self.reads {
            self.read();
        }
    }

    /// It reads up to the end, which there is: nobody has the other end any more.
    pub fn expect_end(&mut self) {
        assert!(self.read(), "a stream of a device that is gone is open");
    }

    /// Whether that was all that there will be.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(count) => self.hear(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Before anything else it hears that it is connected, and from which port.
    fn hear(&mut self, bytes: &[u8]) {
        let Some(greeting) = &mut self.greeting else {
            return;
        };
        greeting.extend(&bytes[..bytes.len().min(GREETING_BYTES - greeting.len())]);
        let Some(end) = greeting.iter().position(|byte| *byte == b'\n') else {
            assert!(greeting.len() < GREETING_BYTES, "{greeting:?}");
            return;
        };
        let words = str::from_utf8(&greeting[..end]).expect("words");
        let port = words.strip_prefix("OK ").and_then(|port| port.parse().ok());
        let known = port.is_some_and(|port| (FIRST_PORT..=LAST_PORT).contains(&port));
        assert!(known, "{words:?}");
        self.greeting = None;
    }
}
