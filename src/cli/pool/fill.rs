//! The process that makes what a pool of an image lacks.

use super::{name, warm};
use crate::Outcome;
use crate::instances::book;
use clap::Args;
use kvmlet_manager::{Name, Pools};
use kvmlet_sys::signals::{self, ENDING};
use rustix::process::setsid;

/// Fill a pool of an image: for kvmlet itself.
#[derive(Args)]
pub(super) struct Fill {
    #[arg(value_parser = name)]
    name: Name,
}

impl Fill {
    pub fn run(self) -> Outcome {
        // Whoever started it may end without it.
        let _ = setsid();
        signals::heed(&ENDING);
        warm::fill(&Pools::of(&book()?)?, &self.name, None)?;
        Ok(0)
    }
}
