//! The thread that serves one queue.

use super::QUEUE_SIZE;
use super::backend::{Backend, Ended, Medium, Shelf};
use super::buffers::LOT_BYTES;
use super::handle::{Shared, count};
use super::job::{Job, Operation, Purpose, Step};
use super::request::{Command, HEADER_BYTES, Reply, Request, Status};
use crate::devices::virtio::rate_limiter::{Gate, Take};
use crate::devices::virtio::{Broken, Chain, Interrupt, Order, Orders, Virtqueue};
use crate::memory::GuestMemory;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vm_memory::Bytes;

/// Data that may be on their way at once, in bytes: whoever stops a disk waits for them.
const IN_FLIGHT_BYTES: u64 = 8 << 20;

/// How long a worker that is to stand still waits for the kernel before it looks whether it still is.
const SLEEPER_LOOKS: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Why a worker ends before it is told to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Driver(#[from] Broken),
    #[error("the host's I/O failed: {0}")]
    Backend(#[from] io::Error),
}

/// What keeps a worker from taking more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There are none.
    Empty,
    /// As many are in flight as the queue has entries, or as much as may be.
    Full,
    /// The rate limit.
    Throttled,
}

/// A queue with all that its thread needs to serve it.
pub(super) struct QueueServer {
    queue: Virtqueue,
    memory: Arc<GuestMemory>,
    shared: Arc<Shared>,
    medium: Arc<dyn Medium>,
    gate: Gate,
    /// Made by the thread that uses it: when it started, or when the first job comes.
    backend: Option<Box<dyn Backend>>,
    shelf: Shelf,
    /// Jobs to be used again, with their lists.
    spare: Vec<Job>,
    ended: Vec<Ended>,
    in_flight: u16,
    /// What of their data may be on its way, in bytes.
    in_flight_bytes: u64,
    /// Reads that the back end works on: they change guest memory.
    reads: u16,
    /// Jobs whose next operation waits until the device wakes; `None` while it is awake.
    held: Option<Vec<Job>>,
    /// Answers since the driver was last told.
    unsignalled: bool,
}

impl QueueServer {
    pub fn new(
        queue: Virtqueue,
        shared: Arc<Shared>,
        medium: Arc<dyn Medium>,
        shelf: Shelf,
    ) -> io::Result<Self> {
        Ok(Self {
            memory: Arc::new(queue.memory().clone()),
            gate: shared.limiter.gate()?,
            queue,
            shared,
            medium,
            backend: None,
            shelf,
            spare: Vec::new(),
            ended: Vec::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            reads: 0,
            held: None,
            unsignalled: false,
        })
    }

    /// Serves until told to stop, or until the driver breaks the rules. When it returns, the kernel works on
    /// nothing of it any more.
    pub fn serve(mut self, interrupt: &Interrupt, orders: &Orders) {
        self.backend = self.shelf.take();
        let broken = self.serve_until(orders).err();
        // First the kernel lets go of the driver's buffers, then the driver hears of it.
        if let Some(mut backend) = self.backend.take() {
            // This thread may not make a ring again: it may be confined.
            let usable = backend.settle();
            self.shelf
                .put(if usable { backend } else { self.medium.plain() });
        }
        if let Some(why) = broken {
            interrupt.needs_reset(&why);
        }
    }

    fn serve_until(&mut self, orders: &Orders) -> Result<(), Failure> {
        let mut chain = Chain::default();
        loop {
            let more = self.pass(&mut chain)?;
            if self.wait(more, orders) && self.obey(orders)? {
                return Ok(());
            }
        }
    }

    /// One round: take what there is, start it, answer what has ended, tell the driver once. Returns what
    /// to wait for, or `None` if there is more to be taken now.
    fn pass(&mut self, chain: &mut Chain) -> Result<Option<Pause>, Failure> {
        self.queue.mute()?;
        let pause = self.take(chain)?;
        let again = self.advance()?;
        self.signal()?;
        let more = match pause {
            None => true,
            Some(Pause::Empty) => self.queue.unmute()?,
            Some(Pause::Full) => !self.is_full(),
            Some(Pause::Throttled) => false,
        };
        Ok(pause.filter(|_| !more && !again))
    }

    fn signal(&mut self) -> Result<(), Broken> {
        match std::mem::take(&mut self.unsignalled) {
            true => self.queue.signal(),
            false => Ok(()),
        }
    }

    /// Does as it is told; true if that is to end. Before it stands still, what would change guest memory behind its
    /// back is waited for, which is a lot at the most of each request, and nothing new is begun.
    fn obey(&mut self, orders: &Orders) -> Result<bool, Failure> {
        self.held = Some(Vec::new());
        while self.reads > 0 && orders.standing() == Order::Sleep {
            self.await_progress(SLEEPER_LOOKS);
            self.advance()?;
            self.signal()?;
        }
        let ends = orders.obey();
        for job in self.held.take().into_iter().flatten() {
            self.submit(job);
        }
        Ok(ends)
    }

    /// Takes requests until there is a reason not to, or until it is time to look whether to stop: a driver that
    /// never ceases to ask cannot keep the disk from being reset.
    fn take(&mut self, chain: &mut Chain) -> Result<Option<Pause>, Failure> {
        let limits = self.shared.limits();
        let mut started = 0;
        for _ in 0..self.queue.size() {
            if self.is_full() {
                return Ok(Some(Pause::Full));
            }
            // A back end of plain calls has done all that by now.
            if started >= LOT_BYTES as u64 {
                return Ok(None);
            }
            if !self.queue.pop(chain)? {
                return Ok(Some(Pause::Empty));
            }
            let request = Request::parse(chain, &self.memory, &limits)?;
            let (operations, bytes) = request.cost();
            if self.gate.take(operations, bytes) != Take::Ready {
                self.queue.unpop();
                return Ok(Some(Pause::Throttled));
            }
            match request.command {
                Err(status) => self.answer(chain.head(), request.reply, status, 0)?,
                Ok(Command::Identify) => {
                    let written = chain.write(&self.memory, 0, &self.shared.identity)?;
                    self.answer(chain.head(), request.reply, Status::Ok, written as u64)?;
                }
                Ok(command) => {
                    self.start(chain, request.reply, command)?;
                    started += bytes;
                }
            }
        }
        Ok(None)
    }

    fn is_full(&self) -> bool {
        self.in_flight == self.queue.size() || self.in_flight_bytes >= IN_FLIGHT_BYTES
    }

    /// Makes a job of a request and hands it to the back end.
    fn start(&mut self, chain: &Chain, reply: Reply, command: Command) -> Result<(), Failure> {
        let durable = !self.shared.writeback.load(Ordering::Acquire);
        let mut job = self
            .spare
            .pop()
            .unwrap_or_else(|| Job::new(self.memory.clone()));
        match command {
            Command::Read { offset, bytes } => {
                job.begin(Purpose::Read, Operation::Read, offset, bytes);
                job.buffers.fill(chain.writable_parts(0, bytes))?;
            }
            Command::Write { offset, bytes } => {
                job.begin(Purpose::Write, Operation::Write { durable }, offset, bytes);
                job.buffers
                    .fill(chain.readable_parts(HEADER_BYTES, bytes))?;
            }
            Command::Flush => job.begin(Purpose::Flush, Operation::Sync, 0, 0),
            Command::Discard { offset, bytes } => {
                job.begin(Purpose::Discard, Operation::Punch, offset, bytes);
            }
            Command::Zero {
                offset,
                bytes,
                unmap,
            } => {
                let operation = if unmap {
                    Operation::Punch
                } else {
                    Operation::Zero
                };
                job.begin(Purpose::Zero, operation, offset, bytes);
                job.durable = durable;
            }
            // Answered where it was taken.
            Command::Identify => return Ok(()),
        }
        (job.head, job.reply) = (chain.head(), reply);
        self.in_flight += 1;
        self.in_flight_bytes += job.lot_bytes();
        self.submit(job);
        Ok(())
    }

    fn submit(&mut self, job: Job) {
        if let Some(held) = &mut self.held {
            return held.push(job);
        }
        self.reads += u16::from(job.operation == Operation::Read);
        self.backend().submit(job);
    }

    fn backend(&mut self) -> &mut dyn Backend {
        let (name, medium) = (&self.shared.name, &self.medium);
        let backend = self
            .backend
            .get_or_insert_with(|| medium.backend(name, QUEUE_SIZE));
        &mut **backend
    }

    /// Starts what was submitted and answers what has ended; true if jobs were submitted for their next operation.
    fn advance(&mut self) -> Result<bool, Failure> {
        let mut again = false;
        if let (1.., Some(backend)) = (self.in_flight, &mut self.backend) {
            let mut ended = std::mem::take(&mut self.ended);
            backend.advance(&mut ended)?;
            for (job, result) in ended.drain(..) {
                again |= self.end(job, result)?;
            }
            self.ended = ended;
        }
        Ok(again)
    }

    /// An operation has ended; true if the job needs another one.
    fn end(&mut self, mut job: Job, result: io::Result<u32>) -> Result<bool, Failure> {
        self.reads -= u16::from(job.operation == Operation::Read);
        let result = match job.advance(result) {
            Step::Again => {
                self.submit(job);
                return Ok(true);
            }
            Step::Done(result) => result,
        };
        self.in_flight -= 1;
        self.in_flight_bytes -= job.lot_bytes();
        let status = match &result {
            Ok(()) => self.succeeded(&job),
            Err(error) => self.failed(&job, error),
        };
        let filled = match (job.purpose, status) {
            (Purpose::Read, Status::Ok) => job.size,
            _ => 0,
        };
        let Job { head, reply, .. } = job;
        self.spare.push(job);
        self.answer(head, reply, status, filled)
            .map(|()| false)
            .map_err(Failure::from)
    }

    fn succeeded(&self, job: &Job) -> Status {
        let counters = &self.shared.counters;
        let requests = match job.purpose {
            Purpose::Read => {
                count(&counters.read_bytes, job.size);
                &counters.reads
            }
            Purpose::Write => {
                count(&counters.written_bytes, job.size);
                &counters.writes
            }
            Purpose::Flush => &counters.flushes,
            Purpose::Discard => &counters.discards,
            Purpose::Zero => &counters.write_zeroes,
        };
        count(requests, 1);
        Status::Ok
    }

    fn failed(&self, job: &Job, error: &io::Error) -> Status {
        let (purpose, offset) = (job.purpose, job.offset);
        self.queue
            .complain(format_args!("{purpose} at byte {offset} failed: {error}"));
        Status::IoError
    }

    /// Puts a request into the used ring. `filled` is how much of its data the device has written.
    fn answer(
        &mut self,
        head: u16,
        reply: Reply,
        status: Status,
        filled: u64,
    ) -> Result<(), Broken> {
        if status != Status::Ok {
            count(&self.shared.counters.errors, 1);
        }
        self.memory.write_obj(status as u8, reply.status)?;
        // What is reported is written without a gap from the start on (§2.7.8.2): the status counts only
        // where it follows at once.
        let written = filled + u64::from(filled == reply.room);
        self.queue
            .push(head, u32::try_from(written).unwrap_or(u32::MAX))?;
        self.unsignalled = true;
        Ok(())
    }

    /// Waits for the back end, and not long.
    fn await_progress(&self, patience: Timespec) {
        let progress = self.backend.as_ref().and_then(|backend| backend.progress());
        if let Some(progress) = progress {
            let mut fds = [PollFd::from_borrowed_fd(progress, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&patience));
        }
    }

    /// Sleeps until there is something to do, or only looks if nothing keeps it; true if there are orders.
    fn wait(&self, pause: Option<Pause>, orders: &Orders) -> bool {
        // SAFETY: the descriptor belongs to the queue, which outlives the call.
        let notified = unsafe { BorrowedFd::borrow_raw(self.queue.notified().as_raw_fd()) };
        // A negative descriptor would be skipped by poll; one that is watched twice does as well.
        let called = PollFd::from_borrowed_fd(orders.as_fd(), PollFlags::IN);
        let mut fds = [called.clone(), called.clone(), called];
        match pause {
            Some(Pause::Throttled) => {
                fds[1] = PollFd::from_borrowed_fd(self.gate.timer(), PollFlags::IN)
            }
            Some(Pause::Empty) => fds[1] = PollFd::from_borrowed_fd(notified, PollFlags::IN),
            Some(Pause::Full) | None => {}
        }
        if let Some(progress) = self.backend.as_ref().and_then(|backend| backend.progress()) {
            fds[2] = PollFd::from_borrowed_fd(progress, PollFlags::IN);
        }
        // Interrupted or not: what is readable decides.
        let _ = poll(&mut fds, pause.is_none().then_some(&Timespec::default()));
        if pause == Some(Pause::Empty) && !fds[1].revents().is_empty() {
            // The counter says how often the driver has notified since it was read last.
            count(
                &self.shared.counters.notifications,
                self.queue.notified().read().unwrap_or(0),
            );
        }
        !fds[0].revents().is_empty()
    }
}
