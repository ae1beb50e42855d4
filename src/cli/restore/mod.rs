//! `kvmlet restore`: a VM that was saved goes on, as the instance that it was or in the foreground.

mod instance;

use super::chosen_id::id;
use super::instances::book;
use super::{Failed, Outcome};
use crate::boot::{Resume, StartedBy};
use crate::snapshot::{open, unusable};
use clap::Args;
pub(super) use instance::{Wanted as Another, refuse_changed};
use kvmlet_manager::{InstanceId, Kept, Name, Snapshots};
use kvmlet_spec::Dialect;
use kvmlet_vmm::snapshot::Saved;
use std::path::PathBuf;
use std::time::Instant;

/// Have a VM go on from a file that `kvmlet snapshot` has written.
///
/// The snapshot of an instance goes on as an instance, with a name of its own. Of any other VM, what its disks, interfaces and sockets
/// are called on this host is said here, in the order in which it had them; it goes on in the foreground, and this ends with its
/// exit code. Ctrl-] ends it from the keyboard.
#[derive(Args)]
pub(super) struct Restore {
    /// What the instance is called [default: two words at random].
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Return when the instance runs, and print its id.
    #[arg(short, long)]
    detach: bool,
    /// Remove the instance when it has ended.
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    resume: Resume,
    /// Read all of guest memory first, and refuse a file in which it has changed.
    #[arg(long)]
    verify: bool,
    /// The snapshot since which it has what has changed, if that is not where the book of who has taken it says.
    #[arg(long, value_name = "FILE", conflicts_with = "memory_from")]
    base: Option<PathBuf>,
    /// The id of the instance.
    #[arg(long, hide = true, value_parser = id)]
    id: Option<InstanceId>,
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Restore {
    #[inline(never)] // see `kvmlet_cli::run`
    pub fn run(self, started: Instant) -> Outcome {
        let taken = self.resume.take()?;
        let saved = taken.or_tell(self.open())?;
        let as_instance = self.name.is_some() || self.detach || self.rm;
        if self.resume.is_said() && !as_instance {
            kvmlet_command::speak(Dialect::Resume);
            return self.resume.run(taken, saved, started);
        }
        if self.resume.is_said() {
            return Err(Failed::new(
                "an instance has the disks, interfaces and sockets that it had",
            )
            .help("leave out their flags, or --name, --detach and --rm"));
        }
        let kept = noted(&saved)?;
        // An instance has what the one that was saved was run with.
        kvmlet_command::speak(match kept.is_some() || as_instance {
            true => Dialect::Copy,
            false => Dialect::Resume,
        });
        match (kept, as_instance) {
            (Some(kept), _) => instance::Wanted {
                name: self.name,
                remove: self.rm,
                id: self.id,
                by: self.resume.started_by().unwrap_or(StartedBy::Copy),
                publish: self.resume.publish.into_iter().flatten().collect(),
            }
            .start(kept, &saved, taken.ready, self.detach),
            (None, false) => self.resume.run(taken, saved, started),
            (None, true) => Err(Failed::new(
                "this is no snapshot of an instance that this user has taken here",
            )
            .help("leave out --name, --detach and --rm, and say what its disks, interfaces and sockets are")),
        }
    }
}

impl Restore {
    /// Can there be many of it that nobody has yet?
    pub fn check_for_pool(&self) -> Result<(), Failed> {
        let as_instance = self.name.is_some() || self.detach || self.rm || self.id.is_some();
        if as_instance || self.resume.is_for_one() {
            return Err(Failed::new(
                "VMs of a pool are no instances, and have no descriptors of whoever makes it",
            )
            .help("say what disks, interfaces and limits each has"));
        }
        let saved = self.open()?;
        match saved.note.is_some() && !self.resume.is_said() {
            false => Ok(()),
            true => Err(Failed::new(
                "this is the snapshot of an instance, and VMs of a pool are no instances",
            )
            .help("boot the same machine with `kvmlet boot --control-fd`, and save that")),
        }
    }

    fn open(&self) -> Result<Saved, Failed> {
        let unusable = |error| {
            match self.resume.started_by() {
            // It was suspended, and its user knows no file.
            Some(StartedBy::Again) => Failed::new(error).help(
                "what cannot be resumed can be booted anew (`kvmlet restart`), without what it had in memory",
            ),
            _ => unusable(&self.file, error),
        }
        };
        let saved = match self.resume.has_pager() {
            true => Saved::open_without_memory(&self.file),
            false => open(&self.file, self.base.as_deref()),
        };
        let saved = saved.map_err(unusable)?;
        if self.verify {
            saved.verify().map_err(unusable)?;
        }
        Ok(saved)
    }
}

/// The instance whose snapshot it is, if the book knows.
fn noted(saved: &Saved) -> Result<Option<Kept>, Failed> {
    let id = saved
        .note
        .clone()
        .and_then(|note| String::from_utf8(note).ok());
    match id.and_then(|id| id.try_into().ok()) {
        Some(id) => Ok(Snapshots::of(&book()?)?.find(&id)?),
        None => Ok(None),
    }
}
