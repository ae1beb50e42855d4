//! A disk in memory that writes down what is done to it.

use super::super::backend::{Backend, Ended, Medium};
use super::super::job::{Job, Operation};
use crate::disk::{self, Geometry};
use kvmlet_sys::event::Event;
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

#[derive(Clone)]
pub struct MemoryMedium {
    bytes: Arc<Mutex<Vec<u8>>>,
    log: Arc<Mutex<Vec<Operation>>>,
    /// The most that a transfer moves at a time.
    pub lot: usize,
    /// Ends nothing before this is readable.
    pub hold: Option<Arc<Event>>,
    /// What it holds cannot be cancelled.
    pub hangs: bool,
    /// Fails operations of a kind with that error number.
    pub fails: Option<(Operation, i32)>,
    /// All back ends but plain ones fail as a whole.
    pub broken: bool,
}

impl MemoryMedium {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(bytes)),
            log: Arc::default(),
            lot: usize::MAX,
            hold: None,
            hangs: false,
            fails: None,
            broken: false,
        }
    }

    /// What was done since this was asked last.
    pub fn log(&self) -> Vec<Operation> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn run(&self, job: &Job) -> io::Result<u32> {
        self.log.lock().unwrap().push(job.operation);
        if let Some((operation, error)) = self.fails
            && operation == job.operation
        {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut disk = self.bytes.lock().unwrap();
        let offset = job.offset as usize;
        let mut done = 0;
        for part in job.buffers.parts() {
            let bytes = part.iov_len.min(self.lot - done);
            let on_disk = disk.get_mut(offset + done..offset + done + bytes);
            let on_disk = on_disk
                .expect("a request beyond the end got through")
                .as_mut_ptr();
            let in_guest = part.iov_base.cast::<u8>();
            // SAFETY: both are valid for this many bytes, and guest memory is no part of the vector.
            unsafe {
                match job.operation {
                    Operation::Read => std::ptr::copy_nonoverlapping(on_disk, in_guest, bytes),
                    Operation::Write { .. } => {
                        std::ptr::copy_nonoverlapping(in_guest, on_disk, bytes)
                    }
                    _ => panic!("buffers where none are due"),
                }
            }
            done += bytes;
        }
        if matches!(job.operation, Operation::Punch | Operation::Zero) {
            disk[offset..offset + job.bytes as usize].fill(0);
        }
        Ok(done as u32)
    }
}

impl Medium for MemoryMedium {
    fn backend(&self, _name: &str, _jobs: u16) -> Box<dyn Backend> {
        Box::new(MemoryBackend {
            medium: self.clone(),
            ended: Vec::new(),
        })
    }

    fn plain(&self) -> Box<dyn Backend> {
        let mut medium = self.clone();
        medium.broken = false;
        medium.backend("plain", 1)
    }

    fn bytes(&self) -> Result<u64, disk::Error> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            logical_bytes: 512,
            physical_bytes: 512,
        }
    }

    fn can_punch(&self) -> bool {
        true
    }
}

struct MemoryBackend {
    medium: MemoryMedium,
    ended: Vec<Ended>,
}

impl Backend for MemoryBackend {
    fn submit(&mut self, job: Job) {
        let result = self.medium.run(&job);
        self.ended.push((job, result));
    }

    fn settle(&mut self) -> bool {
        if self.medium.hangs && !self.ended.is_empty() {
            let fd = self.held().unwrap();
            wait::one(Slot::readable(fd), Until::Forever).unwrap();
        }
        self.ended.clear();
        !self.medium.broken
    }

    fn advance(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        if self.medium.broken {
            return Err(io::Error::other("the ring is gone"));
        }
        if self.held().is_none_or(|hold| ready(hold)) {
            ended.append(&mut self.ended);
        }
        Ok(())
    }

    fn progress(&self) -> Option<BorrowedFd<'_>> {
        self.held()
    }

    fn shows_progress(&self) -> bool {
        self.held().is_some_and(ready)
    }
}

impl MemoryBackend {
    fn held(&self) -> Option<BorrowedFd<'_>> {
        self.medium.hold.as_ref().map(|hold| hold.as_fd())
    }
}

fn ready(fd: BorrowedFd<'_>) -> bool {
    wait::one(Slot::readable(fd), Until::Now).unwrap()
}
