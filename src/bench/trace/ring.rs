//! The kernel's ring of events of one CPU (linux/perf_event.h, `struct perf_event_mmap_page`).

use super::account::{Record, What};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// A power of two; an exit takes 64 bytes.
const DATA_BYTES: usize = 4 << 20;
const PAGE_BYTES: usize = 4096;
/// Where `data_head` is.
const HEAD: usize = 1024;

/// PERF_RECORD_LOST, _EXIT, _SAMPLE, _SWITCH
const LOST: u32 = 2;
const EXIT: u32 = 4;
const SAMPLE: u32 = 9;
const SWITCH: u32 = 14;
/// PERF_RECORD_MISC_SWITCH_OUT
const SWITCH_OUT: u16 = 1 << 13;

#[derive(Debug)]
pub(super) struct Ring {
    memory: *mut c_void,
}

impl Ring {
    pub fn map(event: &OwnedFd) -> io::Result<Self> {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, where the kernel finds room.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE_BYTES + DATA_BYTES,
                flags,
                MapFlags::SHARED,
                event,
                0,
            )
        }?;
        Ok(Self { memory })
    }

    /// All events so far. `what` tells a tracepoint by its id. The ring is never emptied, so that a full one is an
    /// error.
    pub fn records(&self, what: impl Fn(u64) -> Option<What>) -> io::Result<Vec<Record>> {
        // SAFETY: `data_head` is an aligned u64 in the first page, which the kernel writes while we read.
        let head = unsafe { AtomicU64::from_ptr(self.memory.byte_add(HEAD).cast()) };
        let length = head.load(Ordering::Acquire) as usize;
        let full = || io::Error::other("more happened than could be recorded");
        if length > DATA_BYTES {
            return Err(full());
        }
        // SAFETY: this many bytes of the data behind the first page are written, and stay as they are: nothing is
        // overwritten before we say that we have read it, and the events are disabled.
        let data = unsafe {
            std::slice::from_raw_parts(self.memory.byte_add(PAGE_BYTES).cast::<u8>(), length)
        };
        let mut records = Vec::new();
        let mut rest = data;
        while let Some(record) = take_record(&mut rest) {
            match record.kind {
                LOST => return Err(full()),
                SAMPLE => records.extend(what(record.word(2)).map(|what| record.with(what))),
                SWITCH if record.flags & SWITCH_OUT == 0 => records.push(record.with(What::In)),
                SWITCH => records.push(record.with(What::Out)),
                EXIT => records.push(record.exit()),
                _ => {}
            }
        }
        // A record that was not written for want of room is told of with the next one, which there may not be.
        if data.len() + 256 > DATA_BYTES {
            Err(full())
        } else {
            Ok(records)
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this ring's own, and no slice of it outlives `records`.
        let _ = unsafe { munmap(self.memory, PAGE_BYTES + DATA_BYTES) };
    }
}

/// A record behind its header: process and thread (4 bytes each), time, and for samples the tracepoint's id.
struct Raw<'a> {
    kind: u32,
    flags: u16,
    body: &'a [u8],
}

impl Raw<'_> {
    fn word(&self, index: usize) -> u64 {
        let bytes = self
            .body
            .get(index * 8..index * 8 + 8)
            .and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    }

    fn with(&self, what: What) -> Record {
        Record {
            time: self.word(1),
            thread: (self.word(0) >> 32) as u32,
            what,
        }
    }
}

impl Raw<'_> {
    /// Of a thread that ends: process and its parent, thread and its parent (4 bytes each), time. Its last switch is
    /// not told.
    fn exit(&self) -> Record {
        Record {
            time: self.word(2),
            thread: self.word(1) as u32,
            what: What::Out,
        }
    }
}

/// Takes the next record: type (4 bytes), flags (2), size of all (2), body.
fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Raw<'a>> {
    let header: [u8; 8] = rest.get(..8)?.try_into().ok()?;
    let [a, b, c, d, e, f, g, h] = header;
    let size = usize::from(u16::from_ne_bytes([g, h]));
    let body = rest.get(8..size)?;
    *rest = &rest[size..];
    Some(Raw {
        kind: u32::from_ne_bytes([a, b, c, d]),
        flags: u16::from_ne_bytes([e, f]),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart_and_a_cut_one_ends_it() {
        let mut bytes = Vec::new();
        bytes.extend(SAMPLE.to_ne_bytes());
        bytes.extend([0, 0, 32, 0]);
        for half in [7u32, 8] {
            bytes.extend(half.to_ne_bytes());
        }
        for word in [1234u64, 77] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(SWITCH.to_ne_bytes());
        bytes.extend([0, 0x20, 24, 0, 1, 2]);
        let mut rest = bytes.as_slice();
        let sample = take_record(&mut rest).unwrap();
        assert_eq!(
            (sample.kind, sample.word(1), sample.word(2)),
            (SAMPLE, 1234, 77)
        );
        assert_eq!(sample.with(What::Enter).thread, 8);
        assert!(take_record(&mut rest).is_none());
    }

    #[test]
    fn the_end_of_a_thread_takes_it_from_its_cpu() {
        let mut body = Vec::new();
        for half in [7u32, 1, 9, 2] {
            body.extend(half.to_ne_bytes());
        }
        body.extend(1234u64.to_ne_bytes());
        let (kind, flags, body) = (EXIT, 0, body.as_slice());
        let record = Raw { kind, flags, body }.exit();
        assert_eq!((record.thread, record.time), (9, 1234));
        assert_eq!(record.what, What::Out);
    }
}
