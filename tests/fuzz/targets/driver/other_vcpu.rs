//! Another vCPU of the guest, which changes memory while devices work on it: places that the fuzzer chooses change
//! between two values, as fast as they can.

use super::ram;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress};

/// Places that change at a time.
const MOST: usize = 16;
/// Rounds between which others may have the processor.
const ROUNDS: u32 = 64;

#[derive(Clone, Copy)]
enum Flip {
    /// 1, 2, 4 and 8 bytes, each written as one.
    Byte(u64, [u8; 2]),
    Half(u64, [u16; 2]),
    Word(u64, [u32; 2]),
    Double(u64, [u64; 2]),
}

impl Flip {
    fn make(self, side: usize) {
        let ram = ram::ram();
        let order = Ordering::Relaxed;
        // A place that is not RAM, or not aligned, is none to flip.
        let _ = match self {
            Self::Byte(at, values) => ram.store(values[side], GuestAddress(at), order),
            Self::Half(at, values) => ram.store(values[side], GuestAddress(at), order),
            Self::Word(at, values) => ram.store(values[side], GuestAddress(at), order),
            Self::Double(at, values) => ram.store(values[side], GuestAddress(at), order),
        };
    }
}

#[derive(Default)]
struct State {
    flips: Vec<Flip>,
    runs: bool,
}

/// The thread; there is one for all inputs.
pub struct OtherVcpu {
    state: Mutex<State>,
    changed: Condvar,
}

impl OtherVcpu {
    pub fn get() -> &'static Self {
        static VCPU: LazyLock<OtherVcpu> = LazyLock::new(|| {
            std::thread::spawn(|| OtherVcpu::get().work());
            OtherVcpu {
                state: Mutex::default(),
                changed: Condvar::new(),
            }
        });
        &VCPU
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has 1, 2, 4 or 8 bytes there change between what they are and `value`.
    pub fn flip(&self, at: u64, width: usize, value: u64) {
        let at = at / width as u64 * width as u64;
        let place = GuestAddress(at);
        let ram = ram::ram();
        let flip = match width {
            1 => ram
                .read_obj(place)
                .map(|now| Flip::Byte(at, [now, value as u8])),
            2 => ram
                .read_obj(place)
                .map(|now| Flip::Half(at, [now, value as u16])),
            4 => ram
                .read_obj(place)
                .map(|now| Flip::Word(at, [now, value as u32])),
            _ => ram
                .read_obj(place)
                .map(|now| Flip::Double(at, [now, value])),
        };
        flip.into_iter().for_each(|flip| self.add(flip));
    }

    /// Has 8 bytes change between two values.
    pub fn flip_between(&self, at: u64, values: [u64; 2]) {
        self.add(Flip::Double(at, values));
    }

    fn add(&self, flip: Flip) {
        let mut state = self.state();
        if state.flips.len() < MOST {
            state.flips.push(flip);
            state.runs = true;
            self.changed.notify_one();
        }
    }

    /// Stands still; nothing changes when this returns.
    pub fn halt(&self) {
        self.state().runs = false;
    }

    /// Goes on where it stood still.
    pub fn go_on(&self) {
        let mut state = self.state();
        state.runs = !state.flips.is_empty();
        self.changed.notify_one();
    }

    /// Forgets all, at the end of an input or of what the flips were for.
    pub fn forget(&self) {
        let mut state = self.state();
        (state.runs, state.flips) = (false, Vec::new());
    }

    fn work(&self) {
        loop {
            let mut state = self.state();
            while !state.runs {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            for _ in 0..ROUNDS {
                for side in [1, 0] {
                    state.flips.iter().for_each(|flip| flip.make(side));
                }
            }
            drop(state);
            std::thread::yield_now();
        }
    }
}
