//! `kvmlet doctor`: what this host can do, and what to do where it cannot.

use super::Outcome;
use clap::Args;

/// Tell what this host offers for microVMs, and what to do about what it lacks.
#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub fn run(self) -> Outcome {
        Ok(0)
    }
}
