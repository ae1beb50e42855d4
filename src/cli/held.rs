//! What a VM that may be suspended by itself has of this host, in the process that holds it and starts the VM.

use super::{Failed, Outcome};
use crate::boot::{as_the_machine_was, described, run_held, with_holder};
use crate::snapshot::open;
use kvmlet_manager::SUSPENDED;
use kvmlet_manager::supervision::{Begin, Handed, Holds};
use kvmlet_run::HeldNetworks;
use kvmlet_spec::VmConfig;
use kvmlet_sys::wait::Slot;
use kvmlet_vmm::snapshot::Saved;
use rustix::process::chdir;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// It.
pub(super) struct Held {
    /// The configuration, as JSON.
    pub input: String,
    /// The instance's directory, where its paths begin.
    pub place: PathBuf,
    /// What the instance was made of, if that is a snapshot.
    pub snapshot: Option<PathBuf>,
    /// The program, and the instance by its id.
    pub suspends: (PathBuf, String),
    pub networks: Option<HeldNetworks>,
    /// Why there are none.
    pub failed: Option<Failed>,
}

impl Held {
    /// A machine that is, or was.
    fn machine(&self, begin: Begin) -> Result<(VmConfig, Option<Saved>), Failed> {
        chdir(&self.place).map_err(|error| Failed::new(io::Error::from(error)))?;
        let config = described(&self.input)?;
        let path = match begin {
            Begin::Boots => None,
            Begin::Restores => self.snapshot.as_deref(),
            Begin::Resumes => Some(Path::new(SUSPENDED)),
        };
        let Some(path) = path else {
            return Ok((config, None));
        };
        let saved = open(path, None).map_err(|error| {
            Failed::new(error).help(
                "what cannot be resumed can be booted anew (`kvmlet restart`), without what it had in memory",
            )
        })?;
        Ok((
            as_the_machine_was(config, &saved.state.machine)?,
            Some(saved),
        ))
    }

    fn set_up(&self, begin: Begin) -> Result<HeldNetworks, Failed> {
        let (config, _) = self.machine(begin)?;
        HeldNetworks::set_up(&config).map_err(with_holder)
    }

    fn go_on(&mut self, handed: Handed, begin: Begin) -> Outcome {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let networks = self.networks.take().map(HeldNetworks::lend);
        let networks = networks.unwrap_or_default();
        for warning in networks.iter().flat_map(|network| network.warnings()) {
            log::warn!("{warning}");
        }
        let (config, saved) = self.machine(begin)?;
        let Handed { ready, control } = handed;
        let paused = begin == Begin::Resumes;
        run_held(config, (ready, control), networks, saved, paused)
    }
}

impl Holds for Held {
    fn prepare(&mut self, begin: Begin) {
        if self.networks.is_none() {
            match self.set_up(begin) {
                Ok(networks) => (self.networks, self.failed) = (Some(networks), None),
                Err(failed) => self.failed = Some(failed),
            }
        }
    }

    fn run(&mut self, handed: Handed, begin: Begin) -> u8 {
        kvmlet_command::run(|| self.go_on(handed, begin))
    }

    fn slots(&self) -> Vec<Slot<'_>> {
        let networks = self.networks.iter();
        networks.flat_map(HeldNetworks::slots).collect()
    }

    fn due(&self) -> Option<Instant> {
        self.networks.as_ref().and_then(HeldNetworks::due)
    }

    fn turn(&mut self) -> Vec<String> {
        let networks = self.networks.as_mut();
        networks.map(HeldNetworks::turn).unwrap_or_default()
    }

    fn doze(&mut self, dozes: bool) -> io::Result<()> {
        let networks = self.networks.as_ref();
        let done = networks.map_or(Ok(()), |networks| networks.doze(dozes));
        done.map_err(|error| io::Error::other(kvmlet_sys::causes::in_a_line(&error)))
    }

    fn wanted(&self) -> Vec<Slot<'_>> {
        let networks = self.networks.iter();
        networks.flat_map(HeldNetworks::frames).collect()
    }

    fn suspends(&self) -> Command {
        let (program, id) = &self.suspends;
        let mut command = Command::new(program);
        command.args(["suspend", id]);
        command
    }

    fn end(self: Box<Self>) {
        if let Some(networks) = self.networks {
            networks.end();
        }
    }
}
