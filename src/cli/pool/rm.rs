//! `kvmlet pool rm`.

use crate::instances::{book, each};
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Pools, PoolsError};

/// End pools, with all of their VMs that nobody has taken.
#[derive(Args)]
pub(super) struct Rm {
    /// One that is not there is no error.
    #[arg(short, long)]
    force: bool,
    /// Their names.
    #[arg(value_name = "POOL", required = true)]
    names: Vec<String>,
}

impl Rm {
    pub fn run(self) -> Outcome {
        let pools = Pools::of(&book()?)?;
        each(&self.names, |text| {
            let name = super::name(text).map_err(|why| {
                Failed::new(format!("`{}` is not a name: {why}", text.escape_debug()))
            })?;
            if super::warm::remove_pool(&pools, &name)? {
                return Ok(text.into());
            }
            match pools.remove(&name) {
                Err(PoolsError::NotFound { .. }) if self.force => Ok(text.into()),
                other => Ok(other.map(|()| text.into())?),
            }
        })
    }
}
