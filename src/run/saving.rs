//! A VM that is being saved, between its guest's memory and whoever has asked for that.

use crate::Error;
use kvmlet_sys::wait::Slot;
use kvmlet_vmm::vm::{Saving, VmHandle};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Pieces of guest memory that are looked at before others have their turn: 8 MiB.
const TURN: usize = 128;

/// What has come of a turn.
pub(crate) enum Progress {
    /// There is more.
    More,
    /// All is told, or whoever has asked is gone.
    Over(Result<(), Error>),
}

/// A VM that sleeps, on its way through a socket.
pub(crate) struct Telling {
    /// The number of the request.
    pub number: u32,
    to: OwnedFd,
    saving: Saving,
    piece: Vec<u8>,
    sent: usize,
}

impl Telling {
    /// Puts a VM to sleep, to be told to whoever is at the other end of a stream.
    pub fn begin(vm: &VmHandle, number: u32, to: OwnedFd) -> Result<Self, Error> {
        Ok(Self {
            number,
            to,
            saving: vm.begin_saving()?,
            piece: Vec::new(),
            sent: 0,
        })
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        Slot::writable(self.to.as_fd())
    }

    /// Tells as much as there is room for, and no more than takes a moment.
    pub fn go_on(&mut self) -> Progress {
        for _ in 0..TURN {
            match self.step() {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Progress::More,
                Ok(None) => return Progress::Over(Ok(())),
                Err(source) => {
                    let what = "room for what is saved";
                    return Progress::Over(Err(Error::Host { what, source }));
                }
            }
        }
        Progress::More
    }

    /// False if there is no room; none when all is told.
    fn step(&mut self) -> io::Result<Option<bool>> {
        if self.sent == self.piece.len() {
            let Some(piece) = self.saving.next_piece()? else {
                return Ok(None);
            };
            self.piece.clear();
            self.piece.extend_from_slice(piece);
            self.sent = 0;
        }
        while self.sent < self.piece.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.to, &self.piece[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Some(false)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(true))
    }

    /// Has the VM go on, if it ran before.
    pub fn end(self, vm: &VmHandle) {
        vm.end_saving(self.saving);
    }
}
