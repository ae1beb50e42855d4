//! What a VM was asked for and has not answered yet: one thing at a time.

use super::fault::Fault;
use super::machine::Machine;
use super::phase::Phase;
use super::snapshot::CreateSnapshot;
use super::whole::Whole;
use super::writing::Writing;
use kvmlet_control::Order;
use kvmlet_sys::wait::Slot;
use std::os::fd::AsFd;

/// Something that has no answer yet.
#[derive(Debug)]
pub enum Pending {
    /// The VM is being built. It does that next.
    Start {
        phase: Phase,
        loads: bool,
        is_deprecated: bool,
    },
    /// It does something else from then on.
    Move { number: u32, phase: Phase },
    /// Something of it changes, and more after that, the next one last. It is described so then.
    Change {
        number: u32,
        orders: Vec<Order>,
        machine: Box<Machine>,
    },
    /// It tells what it has done, which is written down.
    Metrics { number: u32 },
    /// It tells what its guest's memory is used for.
    Balloon { number: u32 },
    /// It is being saved.
    Save(Box<Saving>),
}

/// A VM that is being saved.
#[derive(Debug)]
pub struct Saving {
    pub number: u32,
    pub asked: CreateSnapshot,
    /// Since which what has changed is to be written, and no more.
    pub base: Option<Whole>,
    /// Who writes it, from the time when it tells something.
    pub writing: Option<Result<Writing, Fault>>,
}

impl Pending {
    pub fn metrics(number: u32) -> Self {
        Self::Metrics { number }
    }

    pub fn balloon(number: u32) -> Self {
        Self::Balloon { number }
    }

    /// What is waited for beside the VM.
    pub fn slot(&self) -> Slot<'_> {
        match self {
            Self::Save(saving) => match &saving.writing {
                Some(Ok(writing)) => Slot::readable(writing.ended.as_fd()),
                _ => Slot::NOTHING,
            },
            _ => Slot::NOTHING,
        }
    }

    /// By which its answer is known.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Start { .. } => None,
            Self::Move { number, .. }
            | Self::Change { number, .. }
            | Self::Metrics { number }
            | Self::Balloon { number } => Some(*number),
            Self::Save(saving) => Some(saving.number),
        }
    }
}
