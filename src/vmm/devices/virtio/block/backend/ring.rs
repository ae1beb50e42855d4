//! io_uring: a batch of jobs in one system call, answers as they come.

use super::ground::Ground;
use super::{Backend, Ended, allocation};
use crate::devices::virtio::block::job::{Job, Operation};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use kvmlet_sys::ring::{self, Medium};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// The index of no job, for entries whose answer does not matter.
const NOBODY: u64 = u32::MAX as u64;

/// A ring of its own for one queue. Jobs in flight lie in a table whose index the kernel hands back.
pub(in super::super) struct Ring<G: Ground> {
    ring: IoUring,
    ground: Arc<G>,
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    /// What was done when it was submitted.
    done: Vec<Ended>,
    /// It cannot be told what the kernel still works on.
    lost: bool,
}

impl<G: Ground> Ring<G> {
    /// # Errors
    /// When the host does not allow io_uring or lacks an operation.
    pub fn new(ground: Arc<G>, jobs: u16) -> io::Result<Self> {
        let ring = ring::new(jobs.into(), ground.kind())?;
        ring::enable(&ring)?;
        Ok(Self {
            ring,
            ground,
            jobs: (0..jobs).map(|_| None).collect(),
            free: (0..jobs.into()).collect(),
            done: Vec::new(),
            lost: false,
        })
    }

    /// Whether it has no job.
    pub fn is_unoccupied(&self) -> bool {
        self.in_flight() == 0
    }

    fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    fn entry(&self, job: &Job) -> squeue::Entry {
        let parts = job.buffers.parts();
        let place = || {
            let (fd, offset) = self.ground.locate(job);
            (Fd(fd.as_raw_fd()), offset)
        };
        let written = self.ground.written().map(|fd| Fd(fd.as_raw_fd()));
        // No more parts than a queue has entries.
        let count = parts.len() as u32;
        match job.operation {
            Operation::Read => {
                let (fd, offset) = place();
                let read = opcode::Readv::new(fd, parts.as_ptr(), count);
                read.offset(offset).build()
            }
            Operation::Write { durable } => {
                let (fd, offset) = place();
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let write = opcode::Writev::new(fd, parts.as_ptr(), count);
                write.offset(offset).rw_flags(flags).build()
            }
            Operation::Sync => written.map_or_else(nothing, |fd| {
                opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
            }),
            Operation::Punch | Operation::Zero => {
                written.map_or_else(nothing, |fd| allocate(fd, job))
            }
        }
    }

    fn enter(&self, wait: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(wait) {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel is short of something that reaping gives back.
                    Some(libc::EAGAIN | libc::EBUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Has the kernel end what it can.
    fn cancel(&mut self) {
        // Entries are free again once the kernel has taken in what was submitted.
        if self.lost || self.in_flight() == 0 || self.enter(0).is_err() {
            return;
        }
        for (index, _) in (0u64..).zip(&self.jobs).filter(|(_, job)| job.is_some()) {
            let entry = opcode::AsyncCancel::new(index).build();
            // SAFETY: it refers to no memory.
            if unsafe { self.ring.submission().push(&entry.user_data(NOBODY)) }.is_err() {
                return;
            }
        }
    }

    fn reap(&mut self, mut each: impl FnMut(Job, io::Result<u32>)) {
        for completion in self.ring.completion() {
            let index = completion.user_data() as u32;
            let Some(job) = self.jobs.get_mut(index as usize).and_then(Option::take) else {
                continue; // the kernel answers each index once
            };
            self.free.push(index);
            each(
                job,
                u32::try_from(completion.result())
                    .map_err(|_| io::Error::from_raw_os_error(-completion.result())),
            );
        }
    }
}

fn nothing() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn allocate(fd: Fd, job: &Job) -> squeue::Entry {
    match allocation::mode(job) {
        None => nothing(),
        Some(mode) => opcode::Fallocate::new(fd, job.bytes)
            .offset(job.offset)
            .mode(mode.bits() as i32)
            .build(),
    }
}

impl<G: Ground> Backend for Ring<G> {
    fn submit(&mut self, mut job: Job) {
        self.ground.bound(&mut job);
        let allocates = matches!(job.operation, Operation::Punch | Operation::Zero);
        let file = (self.ground.written()).filter(|_| self.ground.kind() == Medium::File);
        if let Some(file) = file.filter(|_| allocates) {
            let result = allocation::allocate(file, &job);
            return self.done.push((job, result));
        }
        let entry = self.entry(&job);
        // The caller keeps to the number that the ring was made for, and the kernel takes entries in at each
        // `advance`: a lack of either is a bug.
        let Some(index) = self.free.pop() else {
            unreachable!("more jobs than the ring was made for");
        };
        self.jobs[index as usize] = Some(job);
        let entry = entry.user_data(index.into());
        // SAFETY: buffers and their list belong to the job, which stays in the table until the kernel has
        // answered it; the descriptors belong to `ground`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "a ring has entries for all of its jobs");
    }

    fn advance(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        if self.lost {
            return Err(io::Error::other("io_uring has failed before"));
        }
        ended.append(&mut self.done);
        let submission = self.ring.submission();
        let kernel_is_due =
            !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if kernel_is_due {
            self.enter(0)?;
        }
        self.reap(|job, result| ended.push((job, result)));
        Ok(())
    }

    fn progress(&self) -> Option<BorrowedFd<'_>> {
        (self.in_flight() > 0).then(|| ring::completions(&self.ring))
    }

    fn shows_progress(&self) -> bool {
        // SAFETY: this thread alone has the ring, and no other view of either queue now.
        let (submitted, completed) =
            unsafe { (self.ring.submission_shared(), self.ring.completion_shared()) };
        // Where the kernel waits for this thread to call it before it hands over what has ended, it says so.
        !completed.is_empty() || submitted.taskrun() || submitted.cq_overflow()
    }

    /// The kernel may still write into guest memory: wait until it has let go.
    fn settle(&mut self) -> bool {
        self.done.clear();
        self.cancel();
        while self.in_flight() > 0 && !self.lost {
            if let Err(error) = self.enter(1) {
                // Nothing of what may still be going on may be freed.
                log::error!("io_uring failed with requests in flight: {error}");
                self.jobs.drain(..).for_each(std::mem::forget);
                self.lost = true;
                break;
            }
            self.reap(|_, _| ());
        }
        !self.lost
    }
}

impl<G: Ground> Drop for Ring<G> {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskFile;
    use crate::memory::{Backing, GuestRam};
    use std::time::{Duration, Instant};
    use tempfile::NamedTempFile;
    use vm_memory::GuestAddress;

    #[test]
    fn what_has_ended_is_seen_without_a_call() {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(4096).unwrap();
        let disk = DiskFile::open(image.path(), false, false).unwrap();
        let Ok(mut ring) = Ring::new(Arc::new(disk), 1) else {
            return println!("SKIPPED: this host forbids io_uring, or its kernel is too old");
        };
        assert!(!ring.shows_progress());
        let memory = GuestRam::allocate(&[(GuestAddress(0), 4096)], Backing::default()).unwrap();
        // No file system syncs without a thread that may wait for it.
        ring.submit(Job::new(memory));
        let mut ended = Vec::new();
        ring.advance(&mut ended).unwrap();
        let begun = Instant::now();
        while ended.is_empty() && !ring.shows_progress() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is seen");
            std::hint::spin_loop();
        }
        ring.advance(&mut ended).unwrap();
        assert_eq!(ended.len(), 1);
        assert!(!ring.shows_progress());
    }
}
