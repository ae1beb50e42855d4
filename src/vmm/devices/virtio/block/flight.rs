//! What of a queue's requests is on its way.

use super::QUEUE_SIZE;
use super::backend::{Backend, Ended, Medium, Shelf};
use super::handle::{Shared, count};
use super::job::{Job, Operation, Step};
use super::request::{Command, HEADER_BYTES, Reply, Status};
use crate::devices::virtio::{Broken, Chain, Orders};
use crate::memory::GuestRam;
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Data that may be on their way at once, in bytes: whoever stops a disk waits for them.
const IN_FLIGHT_BYTES: u64 = 8 << 20;

/// An answer for the used ring: the request's number, and the bytes written to it.
pub(super) type Answer = (u16, u32);

/// Requests that are in flight, and what carries them out.
pub(super) struct Flight {
    pub memory: GuestRam,
    pub shared: Arc<Shared>,
    medium: Arc<dyn Medium>,
    /// Made by the thread that uses it: when it started, or when the first job comes.
    backend: Option<Box<dyn Backend>>,
    shelf: Shelf,
    /// Jobs to be used again, with their lists.
    spare: Vec<Job>,
    ended: Vec<Ended>,
    requests: u16,
    /// The most of them that there are at a time.
    most: u16,
    /// What of their data may be on its way, in bytes.
    bytes: u64,
    /// Reads that the back end works on: they change guest memory.
    reads: u16,
    /// Jobs whose next operation waits until the device goes on; `None` while it does.
    held: Option<Vec<Job>>,
}

impl Flight {
    pub fn new(
        memory: GuestRam,
        shared: Arc<Shared>,
        medium: Arc<dyn Medium>,
        shelf: Shelf,
        most: u16,
    ) -> Self {
        Self {
            memory,
            shared,
            medium,
            backend: None,
            shelf,
            spare: Vec::new(),
            ended: Vec::new(),
            requests: 0,
            most,
            bytes: 0,
            reads: 0,
            held: None,
        }
    }

    /// Goes on, in the thread that may use the back end.
    pub fn go_on(&mut self, orders: &Orders) {
        if self.backend.is_none() {
            self.backend = self.shelf.take();
        }
        for job in self.held.take().into_iter().flatten() {
            self.submit(job, orders);
        }
    }

    /// Begins no operation until it is to [go on](Self::go_on).
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Leaves the back end to whoever goes on; nothing is in flight.
    pub fn rest(&mut self) {
        if let Some(backend) = self.backend.take() {
            self.shelf.put(backend);
        }
    }

    /// The kernel lets go of everything, and nothing is in flight any more.
    pub fn abandon(&mut self) {
        if let Some(mut backend) = self.backend.take() {
            // This thread may not make a ring again: it may be confined.
            let usable = backend.settle();
            self.shelf
                .put(if usable { backend } else { self.medium.plain() });
        }
        (self.requests, self.bytes, self.reads) = (0, 0, 0);
        self.held = None;
    }

    /// How many more requests there may be.
    pub fn room(&self) -> u16 {
        match self.bytes >= IN_FLIGHT_BYTES {
            true => 0,
            false => self.most - self.requests,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Whether guest memory may change by what is in flight.
    pub fn changes_memory(&self) -> bool {
        self.reads > 0
    }

    /// Makes a job of a request and hands it to the back end.
    pub fn start(
        &mut self,
        chain: &Chain,
        reply: Reply,
        command: Command,
        orders: &Orders,
    ) -> Result<(), Broken> {
        let durable = !self.shared.writeback.load(Ordering::Acquire);
        let mut job = self
            .spare
            .pop()
            .unwrap_or_else(|| Job::new(self.memory.clone()));
        let operation = match command {
            Command::Read { .. } => Operation::Read,
            Command::Write { .. } => Operation::Write { durable },
            Command::Flush => Operation::Sync,
            Command::Discard { .. } | Command::Zero { unmap: true, .. } => Operation::Punch,
            Command::Zero { unmap: false, .. } => Operation::Zero,
            // Answered where it was taken.
            Command::Identify => return Ok(()),
        };
        job.begin(command, operation);
        match command {
            Command::Read { bytes, .. } => job.buffers.fill(chain.writable_parts(0, bytes))?,
            Command::Write { bytes, .. } => {
                let parts = chain.readable_parts(HEADER_BYTES, bytes);
                job.buffers.fill(parts)?;
            }
            Command::Zero { .. } => job.durable = durable,
            Command::Flush | Command::Discard { .. } | Command::Identify => {}
        }
        (job.head, job.reply) = (chain.head(), reply);
        self.requests += 1;
        self.bytes += job.lot_bytes();
        self.submit(job, orders);
        Ok(())
    }

    /// Plain calls are made here, which take what the host takes.
    fn submit(&mut self, job: Job, orders: &Orders) {
        if let Some(held) = &mut self.held {
            return held.push(job);
        }
        self.reads += u16::from(job.operation == Operation::Read);
        let backend = self.backend();
        orders.with_host(|| backend.submit(job));
    }

    fn backend(&mut self) -> &mut dyn Backend {
        let (name, medium) = (&self.shared.name, &self.medium);
        let backend = self
            .backend
            .get_or_insert_with(|| medium.backend(name, QUEUE_SIZE));
        &mut **backend
    }

    /// Starts what was submitted and hands out the answers of what has ended; true if jobs were submitted for their next
    /// operation.
    pub fn advance<E: From<Broken> + From<io::Error>>(
        &mut self,
        orders: &Orders,
        mut answer: impl FnMut(Answer) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut again = false;
        if let (1.., Some(backend)) = (self.requests, &mut self.backend) {
            let mut ended = std::mem::take(&mut self.ended);
            orders.with_host(|| backend.advance(&mut ended))?;
            for (job, result) in ended.drain(..) {
                match self.end(job, result, orders)? {
                    None => again = true,
                    Some(answered) => answer(answered)?,
                }
            }
            self.ended = ended;
        }
        Ok(again)
    }

    /// An operation has ended; `None` if the job needs another one.
    fn end(
        &mut self,
        mut job: Job,
        result: io::Result<u32>,
        orders: &Orders,
    ) -> Result<Option<Answer>, Broken> {
        self.reads -= u16::from(job.operation == Operation::Read);
        let result = match job.advance(result) {
            Step::Again => {
                self.submit(job, orders);
                return Ok(None);
            }
            Step::Done(result) => result,
        };
        self.requests -= 1;
        self.bytes -= job.lot_bytes();
        let status = match &result {
            Ok(()) => self.succeeded(&job),
            Err(error) => self.failed(&job, error),
        };
        let filled = match (job.command, status) {
            (Command::Read { .. }, Status::Ok) => job.size,
            _ => 0,
        };
        let Job { head, reply, .. } = job;
        self.spare.push(job);
        Ok(Some((head, self.reply(reply, status, filled)?)))
    }

    fn succeeded(&self, job: &Job) -> Status {
        let counters = &self.shared.counters;
        let requests = match job.command {
            Command::Read { .. } => {
                count(&counters.read_bytes, job.size);
                &counters.reads
            }
            Command::Write { .. } => {
                count(&counters.written_bytes, job.size);
                &counters.writes
            }
            Command::Flush => &counters.flushes,
            Command::Identify => return Status::Ok,
            Command::Discard { .. } => &counters.discards,
            Command::Zero { .. } => &counters.write_zeroes,
        };
        count(requests, 1);
        Status::Ok
    }

    fn failed(&self, job: &Job, error: &io::Error) -> Status {
        let (command, offset) = (job.command, job.offset);
        if let Some(interrupt) = self.shared.interrupt.get() {
            interrupt.complain(format_args!("{command} at byte {offset} failed: {error}"));
        }
        Status::IoError
    }

    /// Puts a request's status where it belongs, and says how many bytes count as written. `filled` is how much of its
    /// data the device has written.
    pub fn reply(&self, reply: Reply, status: Status, filled: u64) -> Result<u32, Broken> {
        if status != Status::Ok {
            count(&self.shared.counters.errors, 1);
        }
        reply.status.slice(&self.memory)?.copy_from(&[status as u8]);
        // What is reported is written without a gap from the start on (§2.7.8.2): the status counts only
        // where it follows at once.
        let written = filled + u64::from(filled == reply.room);
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// Readable when there may be something to [advance](Self::advance).
    pub fn progress(&self) -> Option<BorrowedFd<'_>> {
        self.backend.as_ref().and_then(|backend| backend.progress())
    }

    /// Whether there may be something to [advance](Self::advance), found out without asking the kernel.
    pub fn shows_progress(&self) -> bool {
        (self.backend.as_ref()).is_some_and(|backend| backend.shows_progress())
    }

    /// Waits for the back end, and not long.
    pub fn await_progress(&self, patience: Duration, orders: &Orders) {
        if let Some(progress) = self.progress() {
            let until = Until::after(patience);
            let _ = orders.with_host(|| wait::one(Slot::readable(progress), until));
        }
    }
}
