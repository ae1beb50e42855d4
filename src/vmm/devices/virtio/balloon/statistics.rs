//! How a guest's memory is used, as it says itself (virtio 1.2 §5.5.6.3 and §5.5.6.4).

use super::Error;
use crate::config::GuestStatistics;
use kvmlet_sys::thread::lock;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An entry of a statistics buffer: a tag of 16 bits and a value of 64.
const ENTRY_BYTES: usize = 10;
/// There are 16 tags; of a buffer with more entries than this, the rest is left unread.
pub(super) const BUFFER_BYTES: usize = 64 * ENTRY_BYTES;

/// Reads whole entries; tags that are not known are passed over (§5.5.6.3.2).
pub(super) fn parse(bytes: &[u8]) -> GuestStatistics {
    let mut statistics = GuestStatistics::default();
    for entry in bytes.chunks_exact(ENTRY_BYTES) {
        let (tag, value) = entry.split_at(2);
        let (Ok(tag), Ok(value)) = (tag.try_into(), value.try_into()) else {
            continue;
        };
        if let Some(field) = field(&mut statistics, u16::from_le_bytes(tag)) {
            *field = Some(u64::from_le_bytes(value));
        }
    }
    statistics
}

/// Tags of §5.5.6.4; from 10 on, of Linux's include/uapi/linux/virtio_balloon.h.
fn field(of: &mut GuestStatistics, tag: u16) -> Option<&mut Option<u64>> {
    Some(match tag {
        0 => &mut of.swapped_in_bytes,
        1 => &mut of.swapped_out_bytes,
        2 => &mut of.major_faults,
        3 => &mut of.minor_faults,
        4 => &mut of.free_bytes,
        5 => &mut of.total_bytes,
        6 => &mut of.available_bytes,
        7 => &mut of.cache_bytes,
        8 => &mut of.huge_pages_reserved,
        9 => &mut of.huge_pages_failed,
        10 => &mut of.oom_kills,
        11 => &mut of.allocation_stalls,
        12 => &mut of.scanned_in_background_bytes,
        13 => &mut of.scanned_directly_bytes,
        14 => &mut of.reclaimed_in_background_bytes,
        15 => &mut of.reclaimed_directly_bytes,
        _ => return None,
    })
}

#[derive(Default)]
struct Inner {
    /// A driver with a statistics queue is there.
    open: bool,
    asked: bool,
    answers: u64,
    latest: Option<(GuestStatistics, Instant)>,
}

/// Where those who ask meet the worker, which answers.
#[derive(Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What an answer must come after.
pub(super) struct Question(u64);

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// A driver has come, or gone.
    pub fn set_open(&self, open: bool) {
        let mut inner = self.inner();
        (inner.open, inner.asked) = (open, false);
        self.changed.notify_all();
    }

    pub fn ask(&self) -> Result<Question, Error> {
        let mut inner = self.inner();
        match inner.open {
            true => {
                inner.asked = true;
                Ok(Question(inner.answers))
            }
            false => Err(Error::NoDriver),
        }
    }

    /// Whether somebody waits for statistics; the worker then asks the guest, once.
    pub fn take_question(&self) -> bool {
        std::mem::take(&mut self.inner().asked)
    }

    pub fn answer(&self, statistics: GuestStatistics) {
        let mut inner = self.inner();
        inner.asked = false;
        inner.answers += 1;
        inner.latest = Some((statistics, Instant::now()));
        self.changed.notify_all();
    }

    pub fn wait(&self, question: Question, patience: Duration) -> Result<GuestStatistics, Error> {
        let waits = |inner: &mut Inner| inner.open && inner.answers == question.0;
        let (inner, _) = self
            .changed
            .wait_timeout_while(self.inner(), patience, waits)
            .unwrap_or_else(PoisonError::into_inner);
        match inner.latest {
            Some((statistics, _)) if inner.answers != question.0 => Ok(statistics),
            _ if !inner.open => Err(Error::NoDriver),
            _ => Err(Error::NoAnswer { waited: patience }),
        }
    }

    /// The last answer, and when it came.
    pub fn latest(&self) -> Option<(GuestStatistics, Instant)> {
        self.inner().latest
    }
}
