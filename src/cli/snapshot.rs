//! `kvmlet snapshot`.

use super::instances::{book, look};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_control::{Connection, ConnectionError, Saving};
use kvmlet_manager::{InstanceId, Kept, Moment, Snapshots};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::temporary::Temporary;
use kvmlet_vmm::snapshot::{Sink, annotate};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a supervisor may take to begin, and to end, while nothing is told.
const PATIENCE: Duration = Duration::from_secs(40);

/// Save a VM that runs to a file, from which `kvmlet restore` has it go on.
///
/// The VM sleeps meanwhile, and runs on. The file has all of its guest's memory, keys and passwords among it; only this user
/// can read it. Its disks are not in it: copy what it can write while it is paused, or restore it alone.
#[derive(Args)]
pub(super) struct Snapshot {
    /// A name, an id, or the beginning of one; or the path of a control socket, with a `/` in it.
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// The file, which replaces one of that name when it is whole.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Snapshot {
    pub fn run(self) -> Outcome {
        match self.instance.contains('/') {
            true => {
                let connection = Connection::to(Path::new(&self.instance));
                let mut connection = connection.map_err(|error| {
                    let what = format!("control socket `{}` cannot be reached", self.instance);
                    Failed::in_vain(what, error)
                })?;
                self.save(&mut connection, None)?;
            }
            false => {
                let book = book()?;
                let (instance, view) = look(&book, &self.instance)?;
                let mut control = instance.control(view.called())?;
                let kept = Kept {
                    id: InstanceId::random().map_err(Failed::new)?,
                    path: std::path::absolute(&self.file).map_err(Failed::new)?,
                    made: Moment::now(),
                    name: view.name.clone(),
                    asked: view.asked.clone(),
                };
                // Before there is a file that says so.
                let snapshots = Snapshots::of(&book)?;
                snapshots.note(&kept)?;
                if let Err(failed) = self.save(control.connection(), Some(&kept.id)) {
                    snapshots.forget(&kept.id)?;
                    return Err(failed);
                }
            }
        }
        Ok(0)
    }

    /// Saves it, as what is noted under an id if there is one.
    fn save(&self, vm: &mut Connection, id: Option<&InstanceId>) -> Result<(), Failed> {
        let unwritten = |error: io::Error| {
            Failed::in_vain(format!("cannot write `{}`", self.file.display()), error)
        };
        let (directory, name) = place(&self.file).map_err(unwritten)?;
        // It has no name until it is whole, and nobody else can open it.
        let mut new = Temporary::private(&directory).map_err(unwritten)?;
        if directory.path().join(name).is_dir() {
            return Err(unwritten(io::ErrorKind::IsADirectory.into()));
        }
        let unsaved = |error: ConnectionError| {
            Failed::in_vain(format!("cannot save VM `{}`", self.instance), error)
        };
        let Saving {
            pieces,
            most_bytes,
            number,
            ..
        } = vm.save(PATIENCE).map_err(unsaved)?;
        let told = Sink::new(new.file(), most_bytes).fill(File::from(pieces));
        if let Err(error) = told {
            // The VM knows why it has told no more, if that is what is wrong.
            if error.kind() == io::ErrorKind::UnexpectedEof {
                vm.saved(number, PATIENCE).map_err(unsaved)?;
            }
            return Err(unwritten(error));
        }
        vm.saved(number, PATIENCE).map_err(unsaved)?;
        if let Some(id) = id {
            annotate(new.file(), id.as_str().as_bytes()).map_err(unwritten)?;
        }
        new.file().sync_all().map_err(unwritten)?;
        new.publish(name).map_err(unwritten)?;
        rustix::fs::fsync(&directory).map_err(|error| unwritten(error.into()))
    }
}

/// The directory that a file is in, and its name there.
fn place(path: &Path) -> io::Result<(Directory, &Path)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let directory = Directory::open(parent.unwrap_or(Path::new(".")))?;
    Ok((directory, Path::new(name)))
}
