//! Which processes a guest has.

use std::io::{self, Write};
use std::time::Duration;

use kvmlet_contract::channel::{
    Ended, Fault, GuestProcess, MAX_MESSAGE, PROCESSES, ProcessSpec, Role,
};

use super::{Agent, AgentError, Streams, readable};

/// The longest list, in bytes: tens of thousands of processes.
const MAX_LIST: usize = 4 << 20;

/// A process of a guest, as that tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its number in the guest.
    pub pid: u32,
    /// That of its parent; 0 if it has none.
    pub parent: u32,
    /// The number of the user whose it is.
    pub uid: u32,
    /// How much time it has had of processors.
    pub cpu: Duration,
    /// How much of its memory is in RAM, in KiB.
    pub rss_kib: u64,
    /// Its arguments with spaces between them; its name in brackets if it has none. It may be printed.
    pub command: String,
}

/// What a guest writes, up to a bound.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        let bytes = Vec::new();
        Self { bytes, most }
    }
}

impl Bounded {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Agent {
    /// The processes of the guest, in no order. The agent lists them without any program of the guest's image.
    ///
    /// # Errors
    ///
    /// When the guest cannot, does not within `limit`, or sends no list.
    pub fn processes(&mut self, limit: Duration) -> Result<Vec<Process>, AgentError> {
        let spec = ProcessSpec {
            arguments: vec![PROCESSES.into()],
            ..ProcessSpec::default()
        };
        let (mut list, mut complaint) = (Bounded::new(MAX_LIST), Bounded::new(MAX_MESSAGE));
        let mut streams = Streams {
            input: None,
            stdout: &mut list,
            stderr: &mut complaint,
        };
        let ended = self.run(&spec, Role::Tool, &mut streams, Some(limit));
        match ended {
            Ok(Ended::Code(0)) => {}
            Ok(_) => {
                let message = readable(complaint.bytes.trim_ascii_end());
                return Err(AgentError::Failed {
                    fault: Fault::Request,
                    message: format!("list its processes: {message}"),
                });
            }
            Err(AgentError::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(AgentError::Nonsense("a list of processes without end"));
            }
            Err(other) => return Err(other),
        }
        let text = std::str::from_utf8(&list.bytes).ok();
        let processes = text.and_then(|text| text.lines().map(process).collect());
        processes.ok_or(AgentError::Nonsense("a list of processes that is none"))
    }
}

fn process(line: &str) -> Option<Process> {
    let process = GuestProcess::parse(line)?;
    Some(Process {
        pid: process.pid,
        parent: process.parent,
        uid: process.uid,
        cpu: Duration::from_millis(process.cpu_ms),
        rss_kib: process.rss_kib,
        command: readable(process.command.as_bytes()),
    })
}
