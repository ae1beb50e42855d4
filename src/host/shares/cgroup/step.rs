//! What is done to have cgroups, step by step.

use super::Controller;
use std::path::PathBuf;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make a cgroup that is not for this VM alone, unless it is there.
    Share(PathBuf),
    /// Let the children of a cgroup of version 2 have controllers.
    Enable {
        directory: PathBuf,
        controllers: Vec<Controller>,
        /// Who is in its way is moved into a child.
        clear: bool,
    },
    /// Make a cgroup.
    Make(PathBuf),
    /// Write to a file.
    Write(PathBuf, String),
    /// Write to a file once the guest is about to run: what a VM's start takes is not paid from its share.
    Withhold(PathBuf, String),
}

impl Step {
    /// The directory that it makes for this VM alone.
    pub fn made(&self) -> Option<&PathBuf> {
        match self {
            Step::Make(path) => Some(path),
            _ => None,
        }
    }
}
