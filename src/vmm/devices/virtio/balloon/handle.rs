//! The outside view of a balloon: its size, what came back, and how much memory the guest uses.

use super::Error;
use super::statistics::Board;
use crate::config::{Balloon, BalloonStats, GuestStatistics, Memory};
use crate::devices::virtio::Interrupt;
use crate::memory::PAGE_BYTES;
use kvmlet_sys::event::Event;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Counters behind [`BalloonStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub inflated_bytes: AtomicU64,
    pub deflated_bytes: AtomicU64,
    pub reported_bytes: AtomicU64,
    pub refused_pages: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the front, its worker and the handles share.
pub(super) struct Shared {
    /// Guest RAM, for limits.
    memory: Memory,
    pub target_pages: AtomicU32,
    pub actual_pages: AtomicU32,
    pub counters: Counters,
    pub board: Board,
    /// Tells the worker that statistics are wanted.
    pub asked: Event,
    /// The transport's, from the first activation on.
    pub interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    pub fn new(target: Memory, memory: Memory) -> io::Result<Self> {
        Ok(Self {
            memory,
            target_pages: AtomicU32::new(pages(target)),
            actual_pages: AtomicU32::new(0),
            counters: Counters::default(),
            board: Board::default(),
            asked: Event::new()?,
            interrupt: OnceLock::new(),
        })
    }
}

/// Whole pages; guest RAM ends long before their number does not fit (§5.5.4 gives it 32 bits).
fn pages(size: Memory) -> u32 {
    u32::try_from(size.bytes() / PAGE_BYTES).unwrap_or(u32::MAX)
}

fn size(pages: &AtomicU32) -> Memory {
    Memory::from_bytes(u64::from(pages.load(Ordering::Acquire)) * PAGE_BYTES)
}

/// A balloon in use, for whoever runs the VM. Clones are of the same balloon.
#[derive(Clone)]
pub struct BalloonHandle(pub(super) Arc<Shared>);

impl BalloonHandle {
    /// How much the host wants in the balloon.
    pub fn target(&self) -> Memory {
        size(&self.0.target_pages)
    }

    /// How much is in it, as the guest says.
    pub fn actual(&self) -> Memory {
        size(&self.0.actual_pages)
    }

    /// Changes how much is to be in the balloon, in whole pages. Returns at once: the guest works towards it
    /// as it can, from now or, if it has no driver yet, from then on.
    ///
    /// # Errors
    /// [`Error::Size`] when that would leave too little of the guest's memory.
    pub fn set_target(&self, target: Memory) -> Result<(), Error> {
        Balloon::check_size(target, self.0.memory)?;
        let pages = pages(target);
        if self.0.target_pages.swap(pages, Ordering::AcqRel) != pages
            && let Some(interrupt) = self.0.interrupt.get()
        {
            interrupt.config_changed();
        }
        Ok(())
    }

    /// Asks the guest how much memory it uses, and waits for the answer. Nobody asks but by this: a guest that is left
    /// alone stays idle.
    ///
    /// # Errors
    /// [`Error::NoDriver`] when there is nobody to ask, or no longer; [`Error::NoAnswer`] when `patience` is
    /// over.
    pub fn ask_guest(&self, patience: Duration) -> Result<GuestStatistics, Error> {
        let question = self.0.board.ask()?;
        self.0.asked.signal();
        self.0.board.wait(question, patience)
    }

    /// What it holds and has done so far, with what the guest told last.
    pub fn stats(&self) -> BalloonStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        let (guest, told) = self.0.board.latest().unzip();
        let age = told.map(|told: Instant| told.elapsed().as_millis());
        let mut stats = BalloonStats::default();
        stats.target_bytes = self.target().bytes();
        stats.actual_bytes = self.actual().bytes();
        stats.inflated_bytes = get(&counters.inflated_bytes);
        stats.deflated_bytes = get(&counters.deflated_bytes);
        stats.reported_bytes = get(&counters.reported_bytes);
        stats.refused_pages = get(&counters.refused_pages);
        stats.guest = guest;
        stats.guest_age_ms = age.map(|age| u64::try_from(age).unwrap_or(u64::MAX));
        stats
    }
}
