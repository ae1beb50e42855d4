//! One of those who are connected to a service: what it says and is told, and the bounds of both.

use kvmlet_control::agent::channel::{
    Client, Event, Fault, HEADER, MAX_PAYLOAD, Message, Output, Request, VERSION, agree,
};
use kvmlet_sys::wait::Slot;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How many may be attached at once.
pub const MOST: usize = 8;
/// How long whoever has connected may take until it has asked for something, and has heard the answer.
pub const ASKING: Duration = Duration::from_secs(5);
/// How long one that has not asked for anything yet keeps its place while others want it.
const GRACE: Duration = Duration::from_millis(50);
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
        /// Who is to be told whether it was sent; none if that is somebody who is attached.
        asker: Option<u64>,
    },
    /// It is to end.
    Stop {
        /// By this signal, instead of its own.
        signal: Option<u8>,
        /// Within this time, instead of its own.
        timeout: Option<Duration>,
        /// Who is to be told that it was asked.
        asker: u64,
    },
}

/// What it depends on how it is served.
#[derive(Clone, Copy)]
pub struct Around {
    /// The service runs.
    pub runs: bool,
    /// One more may be attached.
    pub has_room: bool,
}

/// One who is attached, or about to be, or asks for something.
pub struct Member {
    pub number: u64,
    stream: OwnedFd,
    /// When it has connected.
    since: Instant,
    inbound: Vec<u8>,
    pub outbound: Vec<u8>,
    greeted: bool,
    /// It has asked for something.
    asked: bool,
    pub attached: bool,
    /// What it may be sent of each stream, and what waits for that.
    credit: [usize; 2],
    pub pending: [Vec<u8>; 2],
    /// Its input, which the guest has no room for yet.
    input: Vec<u8>,
    input_credit: u32,
    input_ends: bool,
    /// What it is told when it has all of the service's output.
    pub last: Option<Vec<u8>>,
    /// It is told, or about to be.
    pub done: bool,
    /// Nothing more is said to it, or heard of it, than what it is being told.
    pub leaves: bool,
    pub gone: bool,
}

/// An event as it is sent.
pub fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + MAX_PAYLOAD];
    // All events that are told here fit into a frame.
    let length = event.encode(&mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

impl Member {
    pub fn new(number: u64, stream: OwnedFd) -> Self {
        Self {
            number,
            stream,
            since: Instant::now(),
            inbound: Vec::new(),
            outbound: encoded(&Event::Hello { version: VERSION }),
            greeted: false,
            asked: false,
            attached: false,
            credit: [0; 2],
            pending: [Vec::new(), Vec::new()],
            input: Vec::new(),
            input_credit: 0,
            input_ends: false,
            last: None,
            done: false,
            leaves: false,
            gone: false,
        }
    }

    /// Tells why it is not served, which is the last that it is told.
    pub fn refuse(&mut self, why: &str) {
        let (fault, message) = (Fault::Request, why.as_bytes());
        self.tell(&Event::Failed { fault, message });
        self.leaves = true;
    }

    pub fn tell(&mut self, event: &Event<'_>) {
        self.outbound.extend(encoded(event));
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        match (self.outbound.is_empty(), self.leaves) {
            (true, _) => Slot::readable(self.stream.as_fd()),
            (false, true) => Slot::writable(self.stream.as_fd()),
            (false, false) => Slot::usable(self.stream.as_fd()),
        }
    }

    /// When it is not waited for any longer.
    pub fn due(&self) -> Option<Instant> {
        (!self.attached).then(|| self.since + ASKING)
    }

    /// From when on it makes room for others: whoever connects asks for something soon.
    pub fn yields_from(&self) -> Option<Instant> {
        (!self.attached && !self.asked).then(|| self.since + GRACE)
    }

    /// One that asks for nothing, or does not take its answer, is not kept for ever.
    pub fn give_up_waiting(&mut self) {
        match self.due() {
            Some(due) if Instant::now() < due => {}
            None => {}
            Some(_) if self.leaves => self.gone = true,
            Some(_) => self.refuse(&format!(
                "wait any longer: nothing was asked for within {} s",
                ASKING.as_secs()
            )),
        }
    }

    /// Reads what it says. Who breaks a rule is gone.
    pub fn receive(
        &mut self,
        around: Around,
        mut client: Option<&mut Client>,
        wishes: &mut Vec<Wish>,
    ) {
        if self.leaves {
            return;
        }
        let mut bytes = [0; 16 << 10];
        match recv(&self.stream, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => self.gone = true,
            Ok((count, _)) => self.inbound.extend_from_slice(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
        let inbound = std::mem::take(&mut self.inbound);
        let mut rest = &inbound[..];
        while !self.gone && !self.leaves {
            match Request::decode(rest) {
                Ok(None) => break,
                Ok(Some((request, length))) => {
                    rest = &rest[length..];
                    if self
                        .serve(&request, around, client.as_deref_mut(), wishes)
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
        around: Around,
        client: Option<&mut Client>,
        wishes: &mut Vec<Wish>,
    ) -> Option<()> {
        match *request {
            Request::Hello { version } => {
                agree(version)?;
                self.greeted = true;
            }
            _ if !self.greeted => return None,
            Request::Signal { .. } | Request::Stop { .. } => self.asked = true,
            _ => {}
        }
        match *request {
            Request::Hello { .. } => {}
            Request::Attach if !self.attached && !around.has_room => self.refuse(&format!(
                "take one more: {MOST} are attached to its service, as many as may be"
            )),
            Request::Attach if !self.attached => {
                self.attached = true;
                if around.runs {
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
            Request::Signal { signal, group } => wishes.push(Wish::Signal {
                signal,
                group,
                asker: (!self.attached).then_some(self.number),
            }),
            Request::Stop { signal, timeout_ms } if !self.attached => wishes.push(Wish::Stop {
                signal,
                timeout: timeout_ms.map(|ms| Duration::from_millis(ms.into())),
                asker: self.number,
            }),
            _ => return None,
        }
        Some(())
    }

    pub fn grant_input(&mut self) {
        let more = INPUT_WINDOW - self.input_credit - self.input.len() as u32;
        if more >= INPUT_WINDOW / 2 {
            self.input_credit += more;
            self.tell(&Event::InputCredit { bytes: more });
        }
    }

    /// Passes its input on, as much as the guest has room for.
    pub fn feed(&mut self, client: &mut Client, over: &mut bool) {
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
    pub fn fill(&mut self) {
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

    pub fn send(&mut self) {
        while !self.outbound.is_empty() && !self.gone {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, &self.outbound, flags) {
                Ok(count) => drop(self.outbound.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
            self.fill();
        }
        self.gone |= self.leaves && self.outbound.is_empty();
    }
}
