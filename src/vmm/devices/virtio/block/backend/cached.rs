//! A file in the page cache: what that can do at once is done at once, and the rest by a ring.
//!
//! A ring has worker threads write to the page cache where the file system has no way to do it without waiting, which
//! costs a small write as much again as itself.

use super::ground::Ground;
use super::ring::Ring;
use super::sync::transfer;
use super::{Backend, Ended};
use crate::devices::virtio::block::job::{Job, Operation};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A write that takes longer waits for more than the page cache, and whoever pauses or ends the disk waits for it.
const LONG: Duration = Duration::from_millis(5);
/// For how long the ring has the writes then, which nobody waits for.
const RESPITE: Duration = Duration::from_secs(1);

pub(in super::super) struct Cached<G: Ground> {
    ground: Arc<G>,
    ring: Ring<G>,
    /// What was done when it was submitted.
    done: Vec<Ended>,
    /// A read that came alone so far: several go by one system call if the ring has them.
    alone: Option<Job>,
    /// Until when the ring has the writes.
    respite: Option<Instant>,
}

impl<G: Ground> Cached<G> {
    /// # Errors
    /// As [`Ring::new`].
    pub fn new(ground: Arc<G>, jobs: u16) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(ground.clone(), jobs)?,
            ground,
            done: Vec::new(),
            alone: None,
            respite: None,
        })
    }

    /// Takes what was done at once as done; the ring has the rest.
    fn take_or_pass_on(&mut self, job: Job, result: Option<io::Result<u32>>) {
        match result {
            Some(result) => self.done.push((job, result)),
            None => self.ring.submit(job),
        }
    }

    fn read(&self, job: &Job) -> Option<io::Result<u32>> {
        let result = transfer(&*self.ground, job, |fd, parts, count, offset| {
            // SAFETY: the parts are mapped memory that the job keeps alive.
            unsafe { libc::preadv2(fd, parts, count, offset, libc::RWF_NOWAIT) }
        });
        // Not in the cache, or not without waiting: the ring finds out what is the matter.
        result.ok().map(Ok)
    }

    fn write(&mut self, job: &Job) -> Option<io::Result<u32>> {
        let began = Instant::now();
        if self.respite.is_some_and(|until| began < until) {
            return None;
        }
        let result = transfer(&*self.ground, job, |fd, parts, count, offset| {
            // SAFETY: as above.
            unsafe { libc::pwritev2(fd, parts, count, offset, 0) }
        });
        self.respite = (began.elapsed() > LONG).then(|| began + LONG + RESPITE);
        Some(result)
    }
}

impl<G: Ground> Backend for Cached<G> {
    fn submit(&mut self, mut job: Job) {
        self.ground.bound(&mut job);
        let before = self.alone.take();
        let is_alone = before.is_none() && self.ring.is_unoccupied();
        if let Some(job) = before {
            self.ring.submit(job);
        }
        match job.operation {
            Operation::Read if is_alone => self.alone = Some(job),
            Operation::Write { durable: false } => {
                let result = self.write(&job);
                self.take_or_pass_on(job, result);
            }
            _ => self.ring.submit(job),
        }
    }

    fn advance(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        if let Some(job) = self.alone.take() {
            let result = self.read(&job);
            self.take_or_pass_on(job, result);
        }
        ended.append(&mut self.done);
        self.ring.advance(ended)
    }

    fn progress(&self) -> Option<BorrowedFd<'_>> {
        self.ring.progress()
    }

    fn shows_progress(&self) -> bool {
        self.ring.shows_progress()
    }

    fn settle(&mut self) -> bool {
        self.done.clear();
        self.alone = None;
        self.ring.settle()
    }
}
