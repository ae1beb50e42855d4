//! A program in a guest, and the client that its streams go to.

use super::super::problem::{BAD_REQUEST, HOST, Problem};
use super::frames::{self, Frame};
use super::lines::{Piece, Text};
use super::peer::{Gone, Peer, Sent};
use super::told::{ExecLine, failed};
use kvmlet_control::agent::channel::{Ended, Event, Output, Request};
use kvmlet_control::agent::{Agent, AgentError};
use kvmlet_manager::supervision::slot_of;
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;

/// With as much that a client has not read, the guest is not heard.
const MOST_UNREAD: usize = 256 << 10;
/// With as much that a guest has not taken, the client is not heard.
const MOST_UNTAKEN: usize = 4 << 10;

/// How a client is told.
#[derive(Debug)]
pub enum Way {
    /// By frames, in both directions.
    Frames {
        /// The program reads what is sent.
        input: bool,
    },
    /// By lines, which nobody answers. What is held back of each output.
    Lines([Text; 2]),
}

impl Way {
    /// By frames.
    pub fn frames(input: bool) -> Self {
        Self::Frames { input }
    }

    /// By lines.
    pub fn lines() -> Self {
        Self::Lines(Default::default())
    }
}

/// Both sides of a program that runs.
#[derive(Debug)]
pub struct Session<'a> {
    agent: Agent,
    way: Way,
    called: &'a str,
    /// What it is to read, and was not taken yet.
    input: Vec<u8>,
    /// More may come.
    listens: bool,
    /// When all of that is said, its input ends.
    ends: bool,
    /// Why the guest says nothing more.
    over: Option<AgentError>,
}

impl<'a> Session<'a> {
    /// Of a program that was started by this connection.
    pub fn new(agent: Agent, way: Way, called: &'a str) -> Self {
        let listens = matches!(way, Way::Frames { .. });
        Self {
            agent,
            way,
            called,
            input: Vec::new(),
            listens,
            ends: false,
            over: None,
        }
    }

    /// Passes all on until the program has ended, or the client has gone. Then the connection to the guest ends with this, by which that is hung up.
    pub fn run(mut self, peer: &mut Peer) {
        // Nobody is left who could be told.
        let _ = self.pass_on(peer);
    }

    fn pass_on(&mut self, peer: &mut Peer) -> Result<(), Gone> {
        loop {
            if self.over.is_none() {
                self.over = self.agent.turn().err();
            }
            let heard = self.hear(peer);
            let was_full = peer.unread() >= MOST_UNREAD;
            peer.send()?;
            if self.listens(peer) && peer.listen()? == Sent::End {
                self.listens = false;
                self.ends = matches!(self.way, Way::Frames { input: true });
            }
            if peer.is_gone() {
                return Err(Gone);
            }
            let obeyed = match heard {
                Ok(true) => return Ok(()),
                Ok(false) => self.obey(peer),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = obeyed {
                self.end(peer, None, Some(problem));
                return Ok(());
            }
            // What the guest has said meanwhile is here, and not told by the kernel again.
            if !was_full || peer.unread() >= MOST_UNREAD {
                self.wait(peer)?;
            }
        }
    }

    /// The guest takes what the client says.
    fn is_heard(&mut self) -> bool {
        self.input.is_empty() && self.agent.client().outgoing().len() < MOST_UNTAKEN
    }

    /// The client is to say more: no more is held of it than the longest frame.
    fn listens(&mut self, peer: &Peer) -> bool {
        self.listens && self.is_heard() && peer.incoming.len() < frames::LONGEST
    }

    fn wait(&mut self, peer: &Peer) -> Result<(), Gone> {
        let has_room = peer.unread() < MOST_UNREAD;
        // There is more to say of what it has said.
        if self.over.is_some() && has_room {
            return Ok(());
        }
        let listens = self.listens(peer);
        let speaks = !self.agent.client().outgoing().is_empty();
        let agent = match (&self.over, has_room, speaks) {
            (None, true, _) => slot_of(&self.agent),
            (None, false, true) => Slot::writable(self.agent.as_fd()),
            _ => Slot::NOTHING,
        };
        let slots = [agent, peer.slot(listens)];
        wait::any(slots, Until::Forever).map(drop).map_err(|_| Gone)
    }

    /// Tells what the guest has said; true when that was all.
    fn hear(&mut self, peer: &mut Peer) -> Result<bool, Problem> {
        while peer.unread() < MOST_UNREAD {
            let event = self.agent.client().next_event();
            let event = event.map_err(|error| failed(error.into(), self.called))?;
            match event {
                None => {
                    return match self.over.take() {
                        None => Ok(false),
                        Some(error) => Err(failed(error, self.called)),
                    };
                }
                Some(Event::Output { output, bytes }) => {
                    let bytes = bytes.to_vec();
                    self.agent.client().taken(output, bytes.len());
                    self.tell(peer, output, &bytes);
                }
                Some(Event::Exited { ended }) => {
                    self.end(peer, Some(ended), None);
                    return Ok(true);
                }
                Some(Event::Failed { fault, message }) => {
                    let message = kvmlet_control::agent::readable(message);
                    let error = AgentError::Failed { fault, message };
                    return Err(failed(error, self.called));
                }
                Some(_) => {}
            }
        }
        Ok(false)
    }

    fn tell(&mut self, peer: &mut Peer, output: Output, bytes: &[u8]) {
        match &mut self.way {
            Way::Frames { .. } => {
                let kind = match output {
                    Output::Stdout => frames::STDOUT,
                    Output::Stderr => frames::STDERR,
                };
                peer.put(&frames::frame(kind, bytes));
            }
            Way::Lines(held) => {
                if let Some(piece) = held[output.index()].add(bytes) {
                    line(peer, &said(output, piece));
                }
            }
        }
    }

    /// How it has ended, or why nobody knows.
    fn end(&mut self, peer: &mut Peer, ended: Option<Ended>, problem: Option<Problem>) {
        let last = ExecLine {
            exit_code: ended.map(Ended::exit_code),
            signal: match ended {
                Some(Ended::Signal(signal)) => Some(signal),
                _ => None,
            },
            problem: problem.map(|problem| problem.with_id(&peer.manners.id)),
            ..ExecLine::default()
        };
        match &mut self.way {
            Way::Frames { .. } => {
                let (kind, json) = match &last.problem {
                    Some(problem) => (frames::PROBLEM, serde_json::to_vec(problem)),
                    None => (frames::ENDED, serde_json::to_vec(&last)),
                };
                peer.put(&frames::frame(kind, &json.unwrap_or_default()));
            }
            Way::Lines(held) => {
                for output in Output::ALL {
                    if let Some(piece) = held[output.index()].rest() {
                        line(peer, &said(output, piece));
                    }
                }
                line(peer, &last);
                peer.end_body();
            }
        }
    }

    /// Does what the client has said, as far as the guest takes it.
    fn obey(&mut self, peer: &mut Peer) -> Result<(), Problem> {
        let Way::Frames { input } = self.way else {
            return Ok(());
        };
        loop {
            if self.agent.client().input_closed() {
                self.input.clear();
            }
            let count = self.agent.client().input(&self.input);
            self.input.drain(..count);
            if !self.is_heard() {
                return Ok(());
            }
            let frame = frames::take(&mut peer.incoming);
            let frame = frame.map_err(|why| Problem::new(BAD_REQUEST, why))?;
            let request = match frame {
                None if std::mem::take(&mut self.ends) => Request::EndInput,
                None => return Ok(()),
                Some(Frame::Input(_) | Frame::EndInput) if !input => {
                    let detail = "the program has no input";
                    return Err(Problem::new(BAD_REQUEST, detail).help("ask for it by `input`"));
                }
                Some(Frame::Input(bytes)) => {
                    self.input = bytes;
                    continue;
                }
                Some(Frame::EndInput) => Request::EndInput,
                Some(Frame::Resize(size)) => Request::Resize { size },
                Some(Frame::Signal(signal)) => Request::Signal {
                    signal,
                    group: true,
                },
            };
            let asked = self.agent.client().request(&request);
            asked.map_err(|error| Problem::because(HOST, &error))?;
        }
    }
}

fn said(output: Output, piece: Piece) -> ExecLine {
    let (text, base64) = match piece {
        Piece::Text(text) => (Some(text), None),
        Piece::Base64(base64) => (None, Some(base64)),
    };
    ExecLine {
        stream: Some(match output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        }),
        text,
        base64,
        ..ExecLine::default()
    }
}

fn line(peer: &mut Peer, line: &ExecLine) {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    peer.body(&text);
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
