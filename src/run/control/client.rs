//! A program that is connected to a VM's control socket.
//!
//! What it can make its supervisor hold is bounded: one request, which is a few bytes, and one answer. Its next request is
//! left where it is until that is read.

use super::http;
use kvmlet_control::{Frame, REQUEST_BYTES, Report, Request, State, framed, send_with};
use kvmlet_spec::Failure;
use kvmlet_sys::wait::Slot;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Read at once.
const READ_BYTES: usize = 512;

/// What has come of listening to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing whole.
    Nothing,
    /// A request.
    Request(Request),
    /// It wants statistics as text.
    Scrape,
    /// It is gone, or speaks nonsense.
    End,
}

/// What it is doing.
#[derive(Debug, PartialEq, Eq)]
enum Talk {
    /// It sends frames.
    Frames,
    /// It sends the head of a request in HTTP.
    Head(Vec<u8>),
    /// It has said all it is going to, and reads the answer.
    Last,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: OwnedFd,
    talk: Talk,
    frame: Frame,
    /// It waits for an answer: nothing is read of it until then.
    waits: bool,
    /// What is to be sent, and what goes with it.
    outgoing: Vec<u8>,
    descriptor: Option<OwnedFd>,
    sent: usize,
    /// What it was told last, if it wants to know.
    watches: bool,
    told: Option<State>,
    /// Since when it has kept this process waiting.
    since: Instant,
}

impl Client {
    pub fn new(stream: OwnedFd) -> Self {
        Self {
            stream,
            talk: Talk::Frames,
            frame: Frame::new(REQUEST_BYTES),
            waits: false,
            outgoing: Vec::new(),
            descriptor: None,
            sent: 0,
            watches: false,
            told: None,
            since: Instant::now(),
        }
    }

    /// It waits for an answer, or watches.
    pub fn is_served(&self) -> bool {
        self.waits || self.watches
    }

    /// Tells it that what it has asked is not done, which is the last that it is told.
    pub fn refuse(&mut self, request: &Request, is_scrape: bool, failure: Failure) {
        match is_scrape {
            true => self.answer_text(http::unavailable(&failure.message)),
            false => {
                let (to, refused) = (request.number, Some(failure));
                self.answer(&[Report::Answer { to, refused }]);
            }
        }
        self.talk = Talk::Last;
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        match () {
            () if !self.outgoing.is_empty() => Slot::writable(self.stream.as_fd()),
            () if self.waits => Slot::NOTHING,
            () => Slot::readable(self.stream.as_fd()),
        }
    }

    /// Until when it has to do something, where it has this long: it need not while it waits, or watches.
    pub fn due(&self, patience: Duration) -> Option<Instant> {
        let is_idle = self.outgoing.is_empty() && self.frame.so_far().is_empty();
        let may_wait = self.waits || (self.watches && is_idle);
        (!may_wait || !self.outgoing.is_empty()).then(|| self.since + patience)
    }

    /// From when on it makes room for others: whoever connects asks for something soon. Not while it waits, or watches.
    pub fn yields_from(&self, grace: Duration) -> Option<Instant> {
        (!self.waits && !self.watches).then(|| self.since + grace)
    }

    pub fn watches(&self) -> bool {
        self.watches
    }

    /// Reads on, no further than to the end of a request.
    pub fn listen(&mut self) -> Heard {
        if self.waits || !self.outgoing.is_empty() {
            return Heard::Nothing;
        }
        let mut bytes = [0; READ_BYTES];
        let most = match &self.talk {
            Talk::Frames => self.frame.lacks().min(READ_BYTES),
            Talk::Head(head) => http::LONGEST_HEAD
                .saturating_sub(head.len())
                .min(READ_BYTES),
            Talk::Last => return Heard::End,
        };
        let bytes = match recv(&self.stream, &mut bytes[..most], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
            Err(_) | Ok((0, _)) => return Heard::End,
            Ok((count, _)) => &bytes[..count],
        };
        match &mut self.talk {
            Talk::Frames => self.take_frame(bytes.to_vec()),
            Talk::Head(head) => {
                head.extend_from_slice(bytes);
                self.look_at_head()
            }
            Talk::Last => Heard::End,
        }
    }

    fn take_frame(&mut self, bytes: Vec<u8>) -> Heard {
        if self.frame.so_far().is_empty() {
            self.since = Instant::now();
        }
        let so_far = [self.frame.so_far(), &bytes].concat();
        match self.frame.add(&bytes) {
            Ok(None) => Heard::Nothing,
            // No frame is as long as this would be.
            Err(_) if so_far.starts_with(http::BEGINNING) => {
                self.talk = Talk::Head(so_far);
                Heard::Nothing
            }
            Err(_) => Heard::End,
            Ok(Some(message)) => match Request::decode(&message) {
                Ok(request) => {
                    self.waits = true;
                    Heard::Request(request)
                }
                Err(error) => {
                    log::debug!("a client of the control socket: {error}");
                    Heard::End
                }
            },
        }
    }

    fn look_at_head(&mut self) -> Heard {
        let Talk::Head(head) = &self.talk else {
            return Heard::End;
        };
        match http::asked(head) {
            http::Asked::NotYet => Heard::Nothing,
            http::Asked::Metrics => {
                (self.talk, self.waits) = (Talk::Last, true);
                Heard::Scrape
            }
            http::Asked::Other(answer) => {
                self.talk = Talk::Last;
                self.put(answer.into_bytes());
                Heard::Nothing
            }
        }
    }

    /// Answers what it has asked, with what else it is told at once.
    pub fn answer(&mut self, reports: &[Report]) {
        self.waits = false;
        self.put(
            reports
                .iter()
                .flat_map(|report| framed(&report.encode()))
                .collect(),
        );
    }

    /// Tells something before that.
    pub fn put_report(&mut self, report: &Report) {
        self.put(framed(&report.encode()));
    }

    /// The same, with a descriptor.
    pub fn put_report_with(&mut self, report: &Report, descriptor: OwnedFd) {
        self.descriptor = Some(descriptor);
        self.put_report(report);
    }

    /// Answers what it has asked in HTTP.
    pub fn answer_text(&mut self, text: String) {
        self.waits = false;
        self.put(text.into_bytes());
    }

    /// It is told from now on what the VM is doing.
    pub fn watch(&mut self) {
        (self.watches, self.told) = (true, None);
    }

    /// Tells what the VM is doing, if it wants to know. Who does not read is told the newest when it does.
    pub fn tell(&mut self, state: State) {
        if self.watches && !self.waits && self.outgoing.is_empty() && self.told != Some(state) {
            self.told = Some(state);
            self.put(framed(&Report::State(state).encode()));
        }
    }

    /// Tells the end, which nobody waits for.
    pub fn tell_end(&mut self, end: &Report) {
        if self.talk == Talk::Frames {
            self.outgoing.extend(framed(&end.encode()));
            let _ = self.send();
        }
    }

    fn put(&mut self, bytes: Vec<u8>) {
        if self.outgoing.is_empty() {
            self.since = Instant::now();
        }
        self.outgoing.extend(bytes);
    }

    /// Sends what there is room for; false if nothing more comes of it.
    pub fn send(&mut self) -> bool {
        while !self.outgoing.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let bytes = &self.outgoing[self.sent..];
            let sent = match &self.descriptor {
                None => send(&self.stream, bytes, flags),
                Some(it) => send_with(&self.stream, bytes, &[it.as_fd()], flags),
            };
            match sent {
                Ok(count) => {
                    self.sent += count;
                    self.descriptor = None;
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
            if self.sent == self.outgoing.len() {
                (self.outgoing, self.sent) = (Vec::new(), 0);
                self.since = Instant::now();
            }
        }
        self.talk != Talk::Last || self.waits
    }
}
