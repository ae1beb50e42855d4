//! Those who are attached to a service: they are told what the guest tells, and what they say is passed on.
//!
//! A supervisor speaks with them as a guest's agent with its host, so that they need to know one sort of frames only. One that
//! does not take what the service writes holds it up, as a reader of a pipe does; what waits for it is no more than what the
//! guest was allowed to send.

use super::Stream;
use super::socket::Listener;
use kvmlet_control::agent::channel::{
    Client, Ended, Event, Fault, HEADER, MAX_PAYLOAD, Message, Output, Request, VERSION, agree,
};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// The socket to attach to, in the instance's directory.
pub(super) const SOCKET: &str = "attach";
/// How many may be attached at once.
const MOST: usize = 8;
/// How much input of each may wait for the guest.
const INPUT_WINDOW: u32 = 16 << 10;
/// Output goes in frames of this size at most, so that streams take turns.
const PART: usize = 8 << 10;

/// What somebody wants of the service.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// A signal for the service.
    Signal {
        /// Its number.
        signal: u8,
        /// For its process group, too.
        group: bool,
    },
}

/// All of them.
pub struct Audience {
    listener: Listener,
    members: Vec<Member>,
    /// What the guest has sent of each stream, and may not send again yet.
    owed: [usize; 2],
    /// The service runs.
    runs: bool,
    /// Somebody has ended its input.
    input_over: bool,
}

/// One who is attached, or about to be.
struct Member {
    stream: OwnedFd,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    greeted: bool,
    attached: bool,
    /// What it may be sent of each stream, and what waits for that.
    credit: [usize; 2],
    pending: [Vec<u8>; 2],
    /// Its input, which the guest has no room for yet.
    input: Vec<u8>,
    input_credit: u32,
    input_ends: bool,
    /// What it is told when it has all of the service's output.
    last: Option<Vec<u8>>,
    /// It is told, or about to be.
    done: bool,
    gone: bool,
}

impl Audience {
    /// Begins to listen, in the directory of an instance.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(directory: &Directory) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::new(directory, SOCKET, 16)?,
            members: Vec::new(),
            owed: [0; 2],
            runs: false,
            input_over: false,
        })
    }

    /// What is to be waited for.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let listener = match self.members.len() < MOST {
            true => self.listener.slot(),
            false => Slot::NOTHING,
        };
        let members = self
            .members
            .iter()
            .map(|member| match member.outbound.is_empty() {
                true => Slot::readable(member.stream.as_fd()),
                false => Slot::usable(member.stream.as_fd()),
            });
        [listener].into_iter().chain(members)
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let accepts = self.members.len() < MOST;
        self.listener.due().filter(|_| accepts)
    }

    /// Is somebody attached?
    pub fn is_there(&self) -> bool {
        self.members.iter().any(|member| member.attached)
    }

    /// Does nobody miss anything any more?
    pub fn has_all(&self) -> bool {
        let mut members = self.members.iter().filter(|member| member.attached);
        members.all(|member| member.last.is_none() && member.outbound.is_empty())
    }

    /// The service runs.
    pub fn started(&mut self) {
        self.runs = true;
        for member in self.members.iter_mut().filter(|member| member.attached) {
            member.tell(&Event::Started { pid: 1 });
        }
    }

    /// It wrote this.
    pub fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        let index = match stream {
            Stream::Stderr => Output::Stderr.index(),
            _ => Output::Stdout.index(),
        };
        self.owed[index] += bytes.len();
        for member in self.members.iter_mut().filter(|member| member.attached) {
            member.pending[index].extend_from_slice(bytes);
        }
    }

    /// How the service has ended, or why it does not run, with the code that says so.
    pub fn ended(&mut self, end: &Result<Ended, (u8, String)>) {
        self.tell_last(&match end {
            Ok(ended) => Event::Exited { ended: *ended },
            Err((exit_code, why)) => Event::Failed {
                fault: Fault::Start {
                    exit_code: *exit_code,
                },
                message: why
                    .strip_prefix("the guest cannot ")
                    .unwrap_or(why)
                    .as_bytes(),
            },
        });
    }

    /// The guest has broken a rule.
    pub fn broken(&mut self, why: &str) {
        self.tell_last(&Event::Failed {
            fault: Fault::Protocol,
            message: format!("go on: {why}").as_bytes(),
        });
    }

    fn tell_last(&mut self, event: &Event<'_>) {
        self.runs = false;
        let is_new = |member: &&mut Member| member.attached && !member.done;
        for member in self.members.iter_mut().filter(is_new) {
            member.last = Some(encoded(event));
            member.done = true;
        }
    }

    /// The VM has ended: whoever is there is told no more.
    pub fn leave(&mut self) {
        self.members.retain(|member| !member.attached);
        (self.owed, self.runs, self.input_over) = ([0; 2], false, false);
    }

    /// Does what can be done without waiting, and hands out what is wanted of the service. There is a `client` of its guest
    /// while that is heard.
    pub fn turn(&mut self, mut client: Option<&mut Client>, wishes: &mut Vec<Wish>) {
        while self.members.len() < MOST
            && let Some(stream) = self.listener.accept()
        {
            self.members.push(Member::new(stream));
        }
        for member in &mut self.members {
            member.receive(self.runs, client.as_deref_mut(), wishes);
            if let Some(client) = &mut client {
                member.feed(client, &mut self.input_over);
            }
            member.fill();
            member.send();
        }
        self.members.retain(|member| !member.gone);
        let Some(client) = client else {
            return;
        };
        for output in Output::ALL {
            let index = output.index();
            let held = self
                .members
                .iter()
                .map(|member| member.pending[index].len());
            let free = self.owed[index].saturating_sub(held.max().unwrap_or(0));
            self.owed[index] -= free;
            client.taken(output, free);
        }
    }
}

fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + MAX_PAYLOAD];
    // All events that are told here fit into a frame.
    let length = event.encode(&mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

impl Member {
    fn new(stream: OwnedFd) -> Self {
        Self {
            stream,
            inbound: Vec::new(),
            outbound: encoded(&Event::Hello { version: VERSION }),
            greeted: false,
            attached: false,
            credit: [0; 2],
            pending: [Vec::new(), Vec::new()],
            input: Vec::new(),
            input_credit: 0,
            input_ends: false,
            last: None,
            done: false,
            gone: false,
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        self.outbound.extend(encoded(event));
    }

    /// Reads what it says. Who breaks a rule is gone.
    fn receive(&mut self, runs: bool, mut client: Option<&mut Client>, wishes: &mut Vec<Wish>) {
        let mut bytes = [0; 16 << 10];
        match recv(&self.stream, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => self.gone = true,
            Ok((count, _)) => self.inbound.extend_from_slice(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
        let inbound = std::mem::take(&mut self.inbound);
        let mut rest = &inbound[..];
        while !self.gone {
            match Request::decode(rest) {
                Ok(None) => break,
                Ok(Some((request, length))) => {
                    rest = &rest[length..];
                    if self
                        .serve(&request, runs, client.as_deref_mut(), wishes)
                        .is_none()
                    {
                        self.gone = true;
                    }
                }
                Err(_) => self.gone = true,
            }
        }
        self.inbound = rest.to_vec();
    }

    /// None where that breaks a rule.
    fn serve(
        &mut self,
        request: &Request<'_>,
        runs: bool,
        client: Option<&mut Client>,
        wishes: &mut Vec<Wish>,
    ) -> Option<()> {
        match *request {
            Request::Hello { version } => {
                agree(version)?;
                self.greeted = true;
            }
            _ if !self.greeted => return None,
            Request::Attach if !self.attached => {
                self.attached = true;
                if runs {
                    self.tell(&Event::Started { pid: 1 });
                    self.grant_input();
                }
            }
            Request::Credit { output, bytes } => {
                let credit = &mut self.credit[output.index()];
                *credit = credit.saturating_add(bytes as usize);
            }
            Request::Input { bytes } if !self.input_ends => {
                self.input_credit = self.input_credit.checked_sub(bytes.len() as u32)?;
                self.input.extend_from_slice(bytes);
            }
            Request::EndInput => self.input_ends = true,
            Request::Resize { .. } => {
                if let Some(client) = client {
                    client.request(request).ok()?;
                }
            }
            Request::Signal { signal, group } => wishes.push(Wish::Signal { signal, group }),
            _ => return None,
        }
        Some(())
    }

    fn grant_input(&mut self) {
        let more = INPUT_WINDOW - self.input_credit - self.input.len() as u32;
        if more >= INPUT_WINDOW / 2 {
            self.input_credit += more;
            self.tell(&Event::InputCredit { bytes: more });
        }
    }

    /// Passes its input on, as much as the guest has room for.
    fn feed(&mut self, client: &mut Client, over: &mut bool) {
        if !self.attached || self.done {
            return;
        }
        let count = match *over || client.input_closed() {
            // Nobody reads it.
            true => self.input.len(),
            false => client.input(&self.input),
        };
        self.input.drain(..count);
        if self.input.is_empty() && self.input_ends && !*over {
            // The guest hears of it later if it has no room now.
            *over = client.request(&Request::EndInput).is_ok();
        }
        if client.input_room() > 0 {
            self.grant_input();
        }
    }

    /// Puts as much of what waits into frames as it has credit for.
    fn fill(&mut self) {
        for output in Output::ALL {
            let index = output.index();
            while self.outbound.len() < PART {
                let pending = &mut self.pending[index];
                let count = pending.len().min(self.credit[index]).min(PART);
                if count == 0 {
                    break;
                }
                let bytes: Vec<u8> = pending.drain(..count).collect();
                self.credit[index] -= count;
                self.tell(&Event::Output {
                    output,
                    bytes: &bytes,
                });
            }
        }
        if self.pending.iter().all(Vec::is_empty)
            && let Some(last) = self.last.take()
        {
            self.outbound.extend(last);
        }
    }

    fn send(&mut self) {
        while !self.outbound.is_empty() && !self.gone {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, &self.outbound, flags) {
                Ok(count) => drop(self.outbound.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.gone = true,
            }
            self.fill();
        }
    }
}
