//! A command that runs once in the guest, over a connection of its own, while its supervisor does other things. What the guest
//! says of it is bounded, and nobody waits for it.

use super::dial::Dialling;
use super::socket::slot_of;
use kvmlet_control::agent::channel::{Ended, Event, ProcessSpec, Request, Role};
use kvmlet_control::agent::{Agent, readable};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use std::io;

/// What it has written, up to a limit.
#[derive(Debug)]
struct Output {
    bytes: Vec<u8>,
    most: usize,
}

#[derive(Debug)]
enum Stage {
    Dialling(Dialling, ProcessSpec),
    /// Its agent was told what is to run.
    Asked(Agent),
    /// Its connection has failed.
    Gone,
}

/// How it has ended, or why that is not known.
pub(super) type End = Result<Ended, String>;

/// A command on its way.
#[derive(Debug)]
pub(super) struct Probe {
    stage: Stage,
    output: Output,
}

impl Probe {
    /// Begins to have a command run in the guest of an instance, of whose output up to `most` bytes are kept.
    pub fn begin(directory: &Directory, spec: ProcessSpec, most: usize) -> io::Result<Self> {
        Ok(Self {
            stage: Stage::Dialling(Dialling::begin(directory)?, spec),
            output: Output {
                bytes: Vec::new(),
                most,
            },
        })
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        match &self.stage {
            Stage::Dialling(dialling, _) => dialling.slot(),
            Stage::Asked(agent) => slot_of(agent),
            Stage::Gone => Slot::NOTHING,
        }
    }

    /// Does what can be done without waiting; how it has ended, once that is known.
    pub fn turn(&mut self) -> Option<End> {
        match self.advance() {
            Ok(None) => None,
            Ok(Some(ended)) => Some(Ok(ended)),
            Err(why) => {
                self.stage = Stage::Gone;
                Some(Err(why))
            }
        }
    }

    /// Has it killed, with all of its process group. That is done once [`turn`](Self::turn) says how it has ended.
    pub fn kill(&mut self) {
        let Stage::Asked(agent) = &mut self.stage else {
            self.stage = Stage::Gone;
            return;
        };
        const SIGKILL: u8 = 9;
        let (signal, group) = (SIGKILL, true);
        // One that does not listen loses its connection, which hangs up on the process.
        let _ = agent.client().request(&Request::Signal { signal, group });
        let _ = agent.turn();
    }

    /// What it has written to both of its streams, as far as that is kept, as text.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.bytes).into_owned()
    }

    fn advance(&mut self) -> Result<Option<Ended>, String> {
        if let Stage::Dialling(dialling, _) = &mut self.stage
            && !dialling.turn().map_err(|error| error.to_string())?
        {
            return Ok(None);
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Dialling(dialling, spec) => {
                let mut agent = dialling.agent();
                let asked = agent.client().start(&spec, Role::Exec);
                asked.map_err(|error| error.to_string())?;
                Stage::Asked(agent)
            }
            other => other,
        };
        let Stage::Asked(agent) = &mut self.stage else {
            return Err("the guest ended the connection to its agent".into());
        };
        let turned = agent.turn();
        if let Some(ended) = self.output.hear(agent)? {
            return Ok(Some(ended));
        }
        turned.map(|()| None).map_err(|error| error.to_string())
    }
}

impl Output {
    /// Takes what the agent has said.
    fn hear(&mut self, agent: &mut Agent) -> Result<Option<Ended>, String> {
        let client = agent.client();
        while let Some(event) = client.next_event().map_err(|error| error.to_string())? {
            match event {
                Event::Output { output, bytes } => {
                    let count = bytes.len();
                    let room = self.most - self.bytes.len();
                    self.bytes.extend(&bytes[..count.min(room)]);
                    // What is not kept is not in the command's way, either.
                    client.taken(output, count);
                }
                Event::Exited { ended } => return Ok(Some(ended)),
                Event::Failed { message, .. } => {
                    return Err(format!("the guest cannot {}", readable(message)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
