//! Those who are attached to a service: they are told what the guest tells, and what they say is passed on.
//!
//! A supervisor speaks with them as a guest's agent with its host, so that they need to know one sort of frames only. One that
//! does not take what the service writes holds it up, as a reader of a pipe does; what waits for it is no more than what the
//! guest was allowed to send.

mod member;

pub use member::Wish;

use super::Stream;
use super::socket::Listener;
use kvmlet_control::agent::channel::{Client, Ended, Event, Fault, Output};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use member::{Around, MOST, Member, encoded};
use std::io;
use std::time::Instant;

/// The socket to attach to, in the instance's directory.
pub(super) const SOCKET: &str = "attach";
/// How many may be connected beside them, to ask for something.
const MOST_ASKING: usize = 8;
/// All of them.
pub struct Audience {
    listener: Listener,
    members: Vec<Member>,
    /// The number of the last one.
    last: u64,
    /// What the guest has sent of each stream, and may not send again yet.
    owed: [usize; 2],
    /// The service runs.
    runs: bool,
    /// Somebody has ended its input.
    input_over: bool,
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
            last: 0,
            owed: [0; 2],
            runs: false,
            input_over: false,
        })
    }

    /// What is to be waited for.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let listener = match self.has_room() {
            true => self.listener.slot(),
            false => Slot::NOTHING,
        };
        let members = self.members.iter().map(Member::slot);
        [listener].into_iter().chain(members)
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let listener = match self.has_room() {
            true => self.listener.due(),
            false => self.first_silent().map(|(from, _)| from),
        };
        let asking = self.members.iter().filter_map(Member::due);
        listener.into_iter().chain(asking).min()
    }

    fn is_full(&self) -> bool {
        self.members.len() >= MOST + MOST_ASKING
    }

    /// Is there room for one more, or does somebody make some who asks for nothing?
    fn has_room(&self) -> bool {
        let now = Instant::now();
        let yields = || self.first_silent().is_some_and(|(from, _)| from <= now);
        !self.is_full() || yields()
    }

    /// The place of the one that has been silent for longest, and from when on it makes room.
    fn first_silent(&self) -> Option<(Instant, usize)> {
        let members = self.members.iter().enumerate();
        let silent = members.filter_map(|(place, member)| Some((member.yields_from()?, place)));
        silent.min()
    }

    /// Tells whoever has asked for something whether that is done.
    pub fn answer(&mut self, asker: u64, done: bool) {
        let asker = self.members.iter_mut().find(|it| it.number == asker);
        let Some(member) = asker else {
            return;
        };
        match done {
            true => member.tell(&Event::Done),
            false => member.refuse("do it: its service does not run"),
        }
        member.leaves = true;
        member.send();
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

    /// The VM has ended: whoever is there is told no more. Returns how much of the service's output they have not heard, in
    /// bytes, of the one who has missed most.
    pub fn leave(&mut self) -> usize {
        let attached = self.members.iter().filter(|member| member.attached);
        let missed = attached.map(|member| member.pending.iter().map(Vec::len).sum());
        let missed = missed.max().unwrap_or(0);
        self.members.retain(|member| !member.attached);
        (self.owed, self.runs, self.input_over) = ([0; 2], false, false);
        missed
    }

    /// Does what can be done without waiting, and hands out what is wanted of the service. There is a `client` of its guest
    /// while that is heard.
    pub fn turn(&mut self, mut client: Option<&mut Client>, wishes: &mut Vec<Wish>) {
        while self.has_room()
            && let Some(stream) = self.listener.accept()
        {
            if self.is_full()
                && let Some((_, place)) = self.first_silent()
            {
                self.members.remove(place);
            }
            self.last += 1;
            self.members.push(Member::new(self.last, stream));
        }
        for index in 0..self.members.len() {
            let attached = self.members.iter().filter(|member| member.attached);
            let around = Around {
                runs: self.runs,
                has_room: attached.count() < MOST,
            };
            let member = &mut self.members[index];
            member.receive(around, client.as_deref_mut(), wishes);
            member.give_up_waiting();
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

#[cfg(test)]
mod tests;
