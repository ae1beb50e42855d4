//! The host's end of a guest's channel: a client of the agent over a Unix socket, which waits for what it expects.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use kvmlet_contract::channel::{Client, Ended, Event, Fault, Output, ProcessSpec, Request, Role};
use kvmlet_contract::{AgentSpec, GuestSpec};

use crate::guest::{Guest, PATIENCE, Running};

/// What the agent said, with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Started(u32),
    Failed(Fault, String),
    InputClosed,
    Exited(Ended),
    Other(String),
    /// The connection is at its end.
    Gone,
}

/// A connection to the agent.
pub struct Host {
    stream: UnixStream,
    client: Client,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Output is dealt with as it comes, so that there is always more credit.
    pub reads_on: bool,
}

/// A guest with an agent that waits for its service, and the agent's own connection.
pub fn guest() -> Option<(Running, Host)> {
    guest_with(|guest| guest)
}

/// The same, of a guest that was changed before it starts.
pub fn guest_with(change: impl FnOnce(Guest) -> Guest) -> Option<(Running, Host)> {
    let spec = GuestSpec {
        agent: Some(AgentSpec::Directory("/agent".into())),
        ..GuestSpec::default()
    };
    let guest = change(Guest::new(&spec.to_cmdline())?);
    let directory = guest.root.path().join("agent");
    std::fs::create_dir(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("host")).unwrap();
    let running = guest.start();
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if running.has_ended() => panic!("no agent: {:?}", running.wait()),
            Err(error) => assert!(start.elapsed() < PATIENCE, "no agent: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    Some((running, Host::over(stream)))
}

/// A shell script as a process.
pub fn script(script: &str) -> ProcessSpec {
    ProcessSpec {
        arguments: ["sh", "-c", script].map(Into::into).into(),
        ..ProcessSpec::default()
    }
}

impl Host {
    fn over(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self {
            stream,
            client: Client::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            reads_on: true,
        }
    }

    /// Another connection to the agent.
    pub fn connect(guest: &Running) -> Self {
        let path = guest.root().join("agent/guest");
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub fn start(mut self, spec: &ProcessSpec, role: Role) -> Self {
        self.client.start(spec, role).unwrap();
        self.flush();
        self
    }

    pub fn attach(mut self) -> Self {
        self.client.attach();
        self.flush();
        self
    }

    /// Makes the machine one of its own, as after a snapshot.
    pub fn renew(&mut self, spec: &ProcessSpec) {
        self.client.renew(spec).unwrap();
        self.flush();
    }

    pub fn request(&mut self, request: &Request<'_>) {
        self.client.request(request).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        let bytes = self.client.outgoing().to_vec();
        // The agent may be gone, which reading tells.
        let _ = self.stream.write_all(&bytes);
        self.client.sent(bytes.len());
    }

    /// Sends all of it, as the process takes it.
    pub fn input(&mut self, mut bytes: &[u8]) {
        let start = Instant::now();
        while !bytes.is_empty() && !self.client.input_closed() {
            assert!(start.elapsed() < PATIENCE, "{} bytes left", bytes.len());
            let count = self.client.input(bytes);
            bytes = &bytes[count..];
            self.flush();
            if count == 0 {
                self.hear();
            }
        }
    }

    pub fn end_input(&mut self) {
        self.request(&Request::EndInput);
    }

    /// The next thing that is no output, if there is one by now.
    fn hear(&mut self) -> Option<Said> {
        loop {
            match self.client.next_event().unwrap() {
                None => {}
                Some(Event::Output { output, bytes }) => {
                    let count = bytes.len();
                    match output {
                        Output::Stdout => self.stdout.extend(bytes),
                        Output::Stderr => self.stderr.extend(bytes),
                    }
                    if self.reads_on {
                        self.client.taken(output, count);
                        self.flush();
                    }
                    return None;
                }
                Some(event) => {
                    return match event {
                        Event::Hello { .. }
                        | Event::InputCredit { .. }
                        | Event::OutputEnded { .. } => None,
                        Event::Started { pid } => Some(Said::Started(pid)),
                        Event::Failed { fault, message } => {
                            Some(Said::Failed(fault, String::from_utf8_lossy(message).into()))
                        }
                        Event::InputClosed => Some(Said::InputClosed),
                        Event::Exited { ended } => Some(Said::Exited(ended)),
                        other => Some(Said::Other(format!("{other:?}"))),
                    };
                }
            }
            let mut bytes = [0; 4096];
            let most = self.client.room().min(bytes.len());
            match self.stream.read(&mut bytes[..most]) {
                Ok(0) => return Some(Said::Gone),
                Ok(count) => assert_eq!(self.client.received(&bytes[..count]), count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Said::Gone),
            }
        }
    }

    /// Whether the process takes no more input.
    pub fn is_over(&self) -> bool {
        self.client.input_closed()
    }

    /// Hears what has come by now.
    pub fn try_next(&mut self) -> Option<Said> {
        self.hear()
    }

    /// Sends any bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Waits for what comes next beside output.
    #[track_caller]
    pub fn next(&mut self) -> Said {
        let start = Instant::now();
        loop {
            if let Some(said) = self.hear() {
                return said;
            }
            assert!(start.elapsed() < PATIENCE, "{}", self.seen());
        }
    }

    /// Waits until standard output has all of this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            if let Some(said) = self.hear() {
                assert!(
                    matches!(said, Said::Started(_)),
                    "{said:?}: {}",
                    self.seen()
                );
            }
            assert!(start.elapsed() < PATIENCE, "{}", self.seen());
        }
    }

    /// All that was written, for a person.
    pub fn seen(&self) -> String {
        let text = String::from_utf8_lossy;
        format!("{:?} {:?}", text(&self.stdout), text(&self.stderr))
    }

    #[track_caller]
    pub fn started(&mut self) -> u32 {
        match self.next() {
            Said::Started(pid) => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the process's end.
    #[track_caller]
    pub fn ended(&mut self) -> Ended {
        loop {
            match self.next() {
                Said::Started(_) | Said::InputClosed => {}
                Said::Exited(ended) => return ended,
                other => panic!("{other:?}: {}", self.seen()),
            }
        }
    }

    /// Waits for the process's end, and returns its code and what it wrote.
    #[track_caller]
    pub fn finish(mut self) -> (u8, String, String) {
        let code = self.ended().exit_code();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(self.stdout), text(self.stderr))
    }
}
