//! A connection to the host: frames in both directions, and never more than one of them in memory.

use kvmlet_contract::channel::{
    Event, Fault, FrameError, HEADER, MAX_PAYLOAD, Message, Output, Request, VERSION,
};

use super::buffer::Buffer;
use crate::sys::{Errno, File};

/// Kept free for what is not output: some tens of small frames.
const RESERVE: usize = 1 << 10;
/// What precedes output in its frame.
const BEFORE_OUTPUT: usize = HEADER + 1;
/// The longest piece of output, in bytes.
const LONGEST_OUTPUT: usize = 8 << 10;

/// The sending half of a connection, and whether it goes on.
pub struct Connection {
    stream: File,
    outbound: Buffer,
    /// Nothing more is read; it ends when what was said is sent.
    ending: bool,
    /// It is gone.
    lost: bool,
}

/// The receiving half: frames in the making.
pub struct Inbound(Buffer);

impl Inbound {
    pub fn new() -> Result<Self, Errno> {
        Buffer::new(HEADER + MAX_PAYLOAD).map(Self)
    }

    /// The first request that has come as a whole, and its length.
    pub fn first(&self) -> Result<Option<(Request<'_>, usize)>, FrameError> {
        Request::decode(self.0.bytes())
    }

    /// The first request is dealt with.
    pub fn done(&mut self, length: usize) {
        self.0.consume(length);
    }

    /// Reads what has come.
    pub fn receive(&mut self, connection: &mut Connection) {
        match self.0.read_from(&connection.stream) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => connection.lost = true,
            Ok(_) => {}
        }
    }
}

impl Connection {
    /// Takes a stream, and greets.
    pub fn new(stream: File) -> Result<Self, Errno> {
        let mut connection = Self {
            stream,
            outbound: Buffer::new(LONGEST_OUTPUT + BEFORE_OUTPUT + 2 * RESERVE)?,
            ending: false,
            lost: false,
        };
        connection.tell(&Event::Hello { version: VERSION });
        Ok(connection)
    }

    pub fn number(&self) -> i32 {
        self.stream.number()
    }

    /// Whether requests are dealt with: not while the answers to them have no place.
    pub fn wants_read(&self) -> bool {
        !self.ending && !self.lost && self.outbound.room() >= RESERVE
    }

    pub fn wants_write(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// Whether there is room for output.
    pub fn has_room(&self) -> bool {
        !self.ending && self.outbound.room() > 2 * RESERVE
    }

    /// Sends an event, soon.
    pub fn tell(&mut self, event: &Event<'_>) {
        match event.encode(self.outbound.space()) {
            Some(length) => self.outbound.added(length),
            // The reserve is used up: the host asks and asks, and reads no answers.
            None => self.lost = true,
        }
    }

    pub fn fail(&mut self, fault: Fault, message: &str) {
        let message = message.as_bytes();
        self.tell(&Event::Failed { fault, message });
        if !matches!(fault, Fault::Request) {
            self.end();
        }
    }

    /// Ends it, when what was said is sent.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Whether there is nothing left to be done with it.
    pub fn is_over(&self) -> bool {
        self.lost || self.ending && self.outbound.is_empty()
    }

    /// Sends what is to be sent.
    pub fn send(&mut self) {
        while self.wants_write() && !self.lost {
            match self.outbound.write_to(&self.stream) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.lost = true,
            }
        }
    }

    /// Reads up to `most` bytes of a process's output and sends them on; says how many there were.
    pub fn pass_on(&mut self, file: &File, output: Output, most: usize) -> Result<usize, Errno> {
        let room = self.outbound.room().saturating_sub(RESERVE + BEFORE_OUTPUT);
        let most = most.min(room).min(LONGEST_OUTPUT);
        if most == 0 {
            return Err(Errno::EINTR);
        }
        let mut bytes = [0; LONGEST_OUTPUT];
        let count = file.read(&mut bytes[..most])?;
        if count > 0 {
            let bytes = &bytes[..count];
            self.tell(&Event::Output { output, bytes });
        }
        Ok(count)
    }
}
