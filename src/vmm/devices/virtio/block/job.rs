//! A request on its way through a back end.

use super::buffers::{Buffers, LOT_BYTES};
use super::request::{Command, Reply};
use crate::memory::GuestRam;
use std::io;

/// What a back end is asked to do next with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Disk to buffers.
    Read,
    /// Buffers to disk; durable means that it is on the medium when it ends.
    Write { durable: bool },
    /// Everything that has ended before becomes durable.
    Sync,
    /// Give the space back; it reads as zeroes then.
    Punch,
    /// Make it zeroes and keep the space.
    Zero,
}

/// What becomes of a job after an operation.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes to the back end once more.
    Again,
    /// It is answered.
    Done(io::Result<()>),
}

/// How often the kernel may say "not now" before it counts as an error.
const TRIES: u8 = 100;

/// One request, with all that must stay in place while the kernel works on it.
pub(super) struct Job {
    /// What was asked, which decides how it ends.
    pub command: Command,
    pub operation: Operation,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How much is left, in bytes.
    pub bytes: u64,
    pub buffers: Buffers,
    /// Whether it must be on the medium before it is answered.
    pub durable: bool,
    /// The number by which the driver knows it.
    pub head: u16,
    /// Where its answer goes.
    pub reply: Reply,
    /// Size of the request's data, in bytes.
    pub size: u64,
    tries: u8,
}

impl Job {
    pub fn new(memory: GuestRam) -> Self {
        Self {
            command: Command::Flush,
            operation: Operation::Sync,
            offset: 0,
            bytes: 0,
            buffers: Buffers::new(memory),
            durable: false,
            head: 0,
            reply: Reply::default(),
            size: 0,
            tries: 0,
        }
    }

    /// Makes it a new request; buffers are left to the caller.
    pub fn begin(&mut self, command: Command, operation: Operation) {
        let (offset, bytes) = command.extent();
        (self.command, self.operation) = (command, operation);
        (self.offset, self.bytes, self.size) = (offset, bytes, bytes);
        self.durable = false;
        self.tries = 0;
        self.buffers.clear();
    }

    /// The most of its data that the kernel works on at a time, in bytes.
    pub fn lot_bytes(&self) -> u64 {
        self.size.min(LOT_BYTES as u64)
    }

    /// Takes the result of an operation: bytes transferred, or zero for what transfers nothing.
    pub fn advance(&mut self, result: io::Result<u32>) -> Step {
        match result {
            Ok(transferred) => self.succeed(transferred),
            Err(error) => self.fail(error),
        }
    }

    fn succeed(&mut self, transferred: u32) -> Step {
        self.tries = 0;
        match self.operation {
            Operation::Sync => return Step::Done(Ok(())),
            Operation::Punch | Operation::Zero => self.bytes = 0,
            // The file became shorter than it was, or the medium is full.
            Operation::Read | Operation::Write { .. } if transferred == 0 && self.bytes > 0 => {
                return Step::Done(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Operation::Read | Operation::Write { .. } => {
                self.bytes = self.bytes.saturating_sub(transferred.into());
                self.offset += u64::from(transferred);
                self.buffers.advance(transferred as usize);
            }
        }
        if self.bytes > 0 {
            // A short transfer, or the next lot of zeroes.
            if self.buffers.parts().is_empty() {
                self.buffers.fill_zeroes(self.bytes);
            }
            return Step::Again;
        }
        if self.durable
            && !matches!(
                self.operation,
                Operation::Read | Operation::Write { durable: true }
            )
        {
            self.operation = Operation::Sync;
            return Step::Again;
        }
        Step::Done(Ok(()))
    }

    fn fail(&mut self, error: io::Error) -> Step {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) if self.tries < TRIES => {
                self.tries += 1;
                Step::Again
            }
            // §5.2.6: what was discarded may read as anything, so leaving it in place is right.
            Some(libc::EOPNOTSUPP) if matches!(self.command, Command::Discard { .. }) => {
                Step::Done(Ok(()))
            }
            Some(libc::EOPNOTSUPP)
                if matches!(self.operation, Operation::Punch | Operation::Zero) =>
            {
                self.operation = Operation::Write {
                    durable: self.durable,
                };
                self.buffers.fill_zeroes(self.bytes);
                Step::Again
            }
            _ => Step::Done(Err(error)),
        }
    }
}
