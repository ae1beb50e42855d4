//! `kvmlet volume prune`.

use crate::instances::book;
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_command::shown::binary;
use kvmlet_manager::{Error, Users, Volumes};

/// Remove volumes that no instance has mounted and nobody has named.
#[derive(Args)]
pub(super) struct Prune {
    /// Those that have a name, too.
    #[arg(short, long)]
    all: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// Only those that pass, as for `volume ls`; can be given again.
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

impl Prune {
    pub fn run(self) -> Outcome {
        let book = book()?;
        let volumes = Volumes::of(&book)?;
        if !self.force && !self.agreed()? {
            return Ok(0);
        }
        let locked = volumes.lock(&book)?;
        let users = Users::of(&book)?;
        let mut unused = volumes.list()?;
        unused.retain(|volume| self.all || volume.note.anonymous);
        for filter in &self.filter {
            let passes = super::passes(filter)?;
            unused.retain(|volume| passes(volume, &users));
        }
        let mut freed = 0;
        for volume in unused {
            match locked.remove(&volume.name, &users) {
                Ok(()) => {
                    freed += volume.stored_bytes;
                    kvmlet_command::print(format!("{}\n", volume.name))?;
                }
                Err(Error::VolumeUsed { .. } | Error::NoVolume { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        kvmlet_command::print(format!("Total reclaimed space: {}\n", binary(freed)))?;
        Ok(0)
    }

    /// Does whoever sits at the terminal want it?
    fn agreed(&self) -> Result<bool, Failed> {
        let which = if self.all { "All" } else { "All unnamed" };
        let sentence =
            format_args!("{which} volumes that no instance has mounted are going to be removed.");
        kvmlet_command::agreed("volumes", sentence)
    }
}
