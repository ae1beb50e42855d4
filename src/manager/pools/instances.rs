//! Pools of an image: instances that went on from its template, and were paused as soon as they ran.

use crate::InstanceId;
use kvmlet_control::PoolStatus;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a pool of an image has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledInstances {
    /// What is said to `kvmlet run` of each.
    pub words: Vec<String>,
    /// Where that was said.
    pub directory: PathBuf,
    /// Those that stand still, and nobody has taken.
    pub parked: Vec<InstanceId>,
    /// The one that is being made, or was by who was killed.
    pub making: Option<InstanceId>,
    /// How many were taken.
    pub taken: u32,
    /// Why there are less than there are to be, if it was tried in vain.
    pub lack: Option<String>,
}

impl PooledInstances {
    /// None yet.
    pub fn of(words: Vec<String>, directory: PathBuf) -> Self {
        Self {
            words,
            directory,
            parked: Vec::new(),
            making: None,
            taken: 0,
            lack: None,
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let mut status = PoolStatus::default();
        (status.ready, status.taken) = (self.parked.len() as u32, self.taken);
        status.lack.clone_from(&self.lack);
        status
    }
}
