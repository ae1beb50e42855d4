//! A VM that is being saved, between its guest's memory and whoever has asked for that.

use crate::Error;
use kvmlet_control::{Order, Request};
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::vm::{Saving, VmHandle};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Pieces of guest memory that are looked at before others have their turn: 1 MiB, each page of which another program may have to give.
const TURN: usize = 16;

/// What has come of a turn.
pub(crate) enum Progress {
    /// There is more.
    More,
    /// All is told, or whoever has asked is gone.
    Over(Result<(), Error>),
}

/// A VM that is saved, on its way through a socket.
pub(crate) struct Telling {
    /// The number of the request.
    pub number: u32,
    to: OwnedFd,
    then: Then,
    saving: Saving,
    piece: Vec<u8>,
    sent: usize,
}

/// What the VM does when all is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It goes on.
    GoesOn,
    /// It is to stand still, once that is so.
    Stays,
    /// It stands still, until whoever was told is gone.
    Waits,
    /// It stands still for good.
    Sleeps,
}

impl Telling {
    /// Begins to tell a VM to whoever is at the other end of a stream, as that was asked for.
    pub fn begin(vm: &VmHandle, request: Request, to: OwnedFd) -> Result<Self, Error> {
        let Request { number, order } = request;
        let stays = order == Order::Suspend;
        let since = match order {
            Order::SaveSince { base } => Some(base),
            _ => None,
        };
        Ok(Self {
            number,
            to,
            then: if stays { Then::Stays } else { Then::GoesOn },
            saving: vm.begin_saving(stays, since)?,
            piece: Vec::new(),
            sent: 0,
        })
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        match self.then {
            Then::GoesOn | Then::Stays => Slot::writable(self.to.as_fd()),
            // Nothing is said there: it is closed.
            Then::Waits => Slot::readable(self.to.as_fd()),
            Then::Sleeps => Slot::NOTHING,
        }
    }

    /// All is told. Does the VM stand still from now on?
    pub fn stands_still(&mut self) -> bool {
        let stays = self.then == Then::Stays;
        if stays {
            self.then = Then::Waits;
        }
        stays
    }

    /// It stands still, and whoever was told is gone if anything comes of them.
    pub fn waits(&self) -> bool {
        self.then == Then::Waits
    }

    /// What was told is kept: the VM stands still whatever becomes of whoever was told. False if it does not yet, or not any more.
    /// Who asks once more, after another one who was killed, hears the same: what is kept must not be taken for something that is not.
    pub fn sleep(&mut self) -> bool {
        if self.waits() {
            self.then = Then::Sleeps;
        }
        self.sleeps()
    }

    /// Does it stand still for good?
    pub fn sleeps(&self) -> bool {
        self.then == Then::Sleeps
    }

    /// Tells as much as there is room for, and no more than takes a moment.
    pub fn go_on(&mut self, vm: &VmHandle) -> Progress {
        // Of memory that nobody has written to nothing is sent, which would say so.
        if wait::one(Slot::broken(self.to.as_fd()), Until::Now).unwrap_or(true) {
            return Progress::Over(Err(no_room(Errno::PIPE)));
        }
        for _ in 0..TURN {
            match self.step(vm) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Progress::More,
                Ok(None) => return Progress::Over(Ok(())),
                Err(error) => return Progress::Over(Err(error)),
            }
        }
        Progress::More
    }

    /// False if there is no room; none when all is told.
    fn step(&mut self, vm: &VmHandle) -> Result<Option<bool>, Error> {
        if self.sent == self.piece.len() {
            self.piece.clear();
            self.sent = 0;
            if !vm.go_on_saving(&mut self.saving, &mut self.piece)? {
                return Ok(None);
            }
        }
        while self.sent < self.piece.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.to, &self.piece[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Some(false)),
                Err(error) => return Err(no_room(error)),
            }
        }
        Ok(Some(true))
    }

    /// Has the VM go on, if it ran before; returns how long it has stood still.
    pub fn end(self, vm: &VmHandle) -> Duration {
        vm.end_saving(self.saving)
    }
}

fn no_room(error: Errno) -> Error {
    Error::Host {
        what: "room for what is saved",
        source: error.into(),
    }
}
