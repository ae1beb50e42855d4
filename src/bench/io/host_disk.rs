//! What the guest's driver does to its disk, done to the file by an io_uring of this process's own.

use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

/// O_DIRECT takes memory and places that are multiples of a block.
const ALIGNMENT: usize = 4096;

pub(super) const DISK_BYTES: u64 = 256 << 20;
pub(super) const OPERATIONS: u64 = 4000;
pub(super) const LARGE_OPERATIONS: u64 = 100;

/// One kind of work: name as the guest prints it, and with what is in the page cache, request size, depth, direction.
pub(super) struct Kind {
    pub name: &'static str,
    pub cached: &'static str,
    pub bytes: usize,
    pub depth: usize,
    pub write: bool,
}

impl Kind {
    pub fn is_large(&self) -> bool {
        self.bytes > 4 << 10
    }

    pub fn operations(&self) -> u64 {
        if self.is_large() {
            LARGE_OPERATIONS
        } else {
            OPERATIONS
        }
    }
}

/// Requests per second.
pub(super) fn rate(path: &Path, kind: &Kind, direct: bool) -> io::Result<f64> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(path)?;
    let mut ring = IoUring::new(64)?;
    // One allocation with a place for each request in flight.
    let mut memory = vec![0u8; kind.bytes * kind.depth + ALIGNMENT];
    let skipped = memory.as_ptr().align_offset(ALIGNMENT);
    let mut places = Places {
        count: DISK_BYTES / kind.bytes as u64,
        random: 0x2545_f491_4f6c_dd1d,
        sequential: 0,
    };
    let batches = kind.operations() / kind.depth as u64;
    let start = Instant::now();
    for _ in 0..batches {
        let buffers = memory[skipped..].chunks_exact_mut(kind.bytes);
        for buffer in buffers.take(kind.depth) {
            let offset = places.next(kind) * kind.bytes as u64;
            let entry = request(&file, buffer, offset, kind.write);
            // SAFETY: buffer and file outlive the request, which is waited for below.
            unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        ring.submit_and_wait(kind.depth)?;
        for answer in ring.completion() {
            match answer.result() {
                result if result < 0 => return Err(io::Error::from_raw_os_error(-result)),
                result if result as usize != kind.bytes => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                _ => {}
            }
        }
    }
    Ok((batches * kind.depth as u64) as f64 / start.elapsed().as_secs_f64())
}

fn request(file: &File, buffer: &mut [u8], offset: u64, write: bool) -> squeue::Entry {
    let fd = types::Fd(file.as_raw_fd());
    let (pointer, bytes) = (buffer.as_mut_ptr(), buffer.len() as u32);
    match write {
        false => opcode::Read::new(fd, pointer, bytes).offset(offset).build(),
        true => opcode::Write::new(fd, pointer, bytes)
            .offset(offset)
            .build(),
    }
}

/// Small requests go to random places, large ones follow each other, as in the guest.
struct Places {
    count: u64,
    random: u64,
    sequential: u64,
}

impl Places {
    fn next(&mut self, kind: &Kind) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.sequential = (self.sequential + 1) % self.count;
        match kind.is_large() {
            true => self.sequential,
            false => (self.random >> 33) % self.count,
        }
    }
}
