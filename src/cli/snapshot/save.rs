//! `kvmlet snapshot INSTANCE FILE`.

use super::base::{Base, refuse_needed};
use crate::instances::{book, look};
use crate::{Failed, Outcome};
use kvmlet_control::{Connection, ConnectionError, Saving};
use kvmlet_manager::{Book, Instance, InstanceId, Kept, Moment, Snapshots, Template, View};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::standard_error;
use kvmlet_sys::temporary::{Temporary, check_place};
use kvmlet_vmm::snapshot::{Fault, Saved, Sink, annotate, is_foreign};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a supervisor may take to begin, and to end, while nothing is told.
const PATIENCE: Duration = Duration::from_secs(40);

/// What helps where others need what is there.
const INSTEAD: &str = "name another file, or remove that snapshot first";

/// Saves a VM that runs to a file: an instance, or who has a control socket.
pub(super) fn save(vm: &str, file: &Path, id: Option<InstanceId>, base: Option<&str>) -> Outcome {
    let target = Target::of(file)?;
    target.refuse_foreign()?;
    let base = base.map(Base::find).transpose()?;
    if let Some(base) = &base {
        base.refuse_at(&target.path)?;
    }
    let (called, pause) = match vm.contains('/') {
        true => {
            let connection = Connection::to(Path::new(vm));
            let mut connection = connection.map_err(|error| {
                Failed::in_vain(format!("control socket `{vm}` cannot be reached"), error)
            })?;
            let whole = target.fill(&mut connection, vm, base.as_ref())?;
            target.refuse_foreign()?;
            publish_unnoted(&target, whole.file)?;
            (vm.to_owned(), whole.pause)
        }
        false => {
            let book = book()?;
            let (instance, view) = look(&book, vm)?;
            refuse_needed(&Snapshots::of(&book)?, &target.path, INSTEAD)?;
            let as_what = As {
                id,
                ..As::default()
            };
            let pause = save_instance(&book, &instance, &view, &target, as_what, base.as_ref())?;
            (view.called().to_owned(), pause)
        }
    };
    tell_pause(&called, pause);
    Ok(0)
}

/// Tells how long a VM has stood still that is called so.
pub(crate) fn tell_pause(called: &str, pause: Duration) {
    standard_error::say(format_args!(
        "kvmlet: `{called}` stood still for {:.1} ms",
        pause.as_secs_f64() * 1000.0
    ));
}

/// What is noted of a snapshot by who takes it.
#[derive(Default)]
pub(crate) struct As {
    /// What it is the template of, if it is one.
    pub template: Option<Template>,
    /// Under which id, if that is known.
    pub id: Option<InstanceId>,
}

/// Saves an instance, or what has changed of it since a base, and notes that in its book; returns how long it has stood still.
pub(crate) fn save_instance(
    book: &Book,
    instance: &Instance,
    view: &View,
    target: &Target,
    as_what: As,
    base: Option<&Base>,
) -> Result<Duration, Failed> {
    let As { template, id } = as_what;
    let snapshots = Snapshots::of(book)?;
    let mut control = instance.control(view.called())?;
    let mut whole = target.fill(control.connection(), view.called(), base)?;
    let kept = Kept {
        id: id
            .map_or_else(InstanceId::random, Ok)
            .map_err(Failed::new)?,
        path: target.path.clone(),
        made: Moment::now(),
        name: view.name.clone(),
        asked: view.asked.clone(),
        template,
        base: base.map(|base| base.path.clone()),
    };
    let id = kept.id.as_str().as_bytes();
    let noted = annotate(whole.file.file(), id);
    noted.map_err(|error| target.unwritten(error))?;
    publish_noted(&snapshots, target, whole.file, &kept, base)?;
    Ok(whole.pause)
}

/// Gives a whole file its name that no book knows of, unless others need what has it.
pub(super) fn publish_unnoted(target: &Target, file: Temporary<'_>) -> Result<(), Failed> {
    // Who cannot have a book has none that needs anything.
    let snapshots = book().ok().and_then(|book| Snapshots::of(&book).ok());
    let _lock = snapshots.as_ref().map(Snapshots::lock).transpose()?;
    if let Some(snapshots) = &snapshots {
        refuse_needed(snapshots, &target.path, INSTEAD)?;
    }
    target.publish(file)
}

/// Gives a whole file its name, and notes what it is of, whose id is in it.
pub(super) fn publish_noted(
    snapshots: &Snapshots,
    target: &Target,
    mut file: Temporary<'_>,
    kept: &Kept,
    base: Option<&Base>,
) -> Result<(), Failed> {
    let synced = file.file().sync_all();
    synced.map_err(|error| target.unwritten(error))?;
    let _lock = snapshots.lock()?;
    // Others may have been quicker.
    base.map_or(Ok(()), Base::refuse_gone)?;
    refuse_needed(snapshots, &target.path, INSTEAD)?;
    // Whatever has the place of a template is none that anybody has put there for himself.
    if kept.template.is_none() {
        target.refuse_foreign()?;
    }
    // Before there is a file that says so.
    snapshots.note(kept)?;
    let published = target.publish(file);
    if published.is_err() {
        snapshots.forget(&kept.id)?;
    }
    published?;
    // What was there is not any more.
    for old in snapshots.list()? {
        if old.path == kept.path && old.id != kept.id {
            snapshots.forget(&old.id)?;
        }
    }
    Ok(())
}

/// Where a file is to be.
pub(crate) struct Target {
    /// Its absolute path.
    path: PathBuf,
    directory: Directory,
    name: PathBuf,
}

/// One without a name, in which a VM is saved.
struct Whole<'a> {
    file: Temporary<'a>,
    /// How long the VM has stood still for it.
    pause: Duration,
}

impl Target {
    pub fn of(path: &Path) -> Result<Self, Failed> {
        let found = Directory::of_file(path).and_then(|(directory, name)| {
            Ok(Self {
                path: std::path::absolute(path)?,
                directory,
                name: name.into(),
            })
        });
        found.map_err(|error| unwritten(path, error))
    }

    fn unwritten(&self, error: io::Error) -> Failed {
        unwritten(&self.path, error)
    }

    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An empty file, which has no name until it is whole, and which nobody else can open.
    pub(super) fn begin(&self) -> Result<Temporary<'_>, Failed> {
        let file = Temporary::private(&self.directory).map_err(|error| self.unwritten(error))?;
        check_place(&self.directory, &self.name).map_err(|error| self.unwritten(error))?;
        Ok(file)
    }

    /// Gives a file its name, once it is on the disk.
    pub(super) fn publish(&self, mut file: Temporary<'_>) -> Result<(), Failed> {
        let synced = file.file().sync_all();
        let published = synced.and_then(|()| file.publish(&self.name));
        let published = published.and_then(|()| Ok(rustix::fs::fsync(&self.directory)?));
        published.map_err(|error| self.unwritten(error))
    }

    /// Saves a VM that is called so, or what has changed of it since a base.
    fn fill(
        &self,
        vm: &mut Connection,
        called: &str,
        base: Option<&Base>,
    ) -> Result<Whole<'_>, Failed> {
        let mut file = self.begin()?;
        let pause = match base {
            None => fill(file.file(), vm, called, &self.path)?,
            Some(base) => fill_over(file.file(), vm, called, &self.path, &base.saved)?,
        };
        Ok(Whole { file, pause })
    }

    /// Refuses a place that has something which is neither an older snapshot nor empty: a slip of the keyboard is not to cost a file.
    pub(super) fn refuse_foreign(&self) -> Result<(), Failed> {
        let error = match is_foreign(&self.path) {
            Ok(false) => return Ok(()),
            Ok(true) => None,
            Err(error) => match error.fault {
                // What is no file has words of its own.
                Fault::Kind => return Ok(()),
                Fault::Read(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                fault => Some(fault),
            },
        };
        // Its name may be too long, or lead nowhere.
        if let (Some(fault), true) = (&error, self.path.symlink_metadata().is_err()) {
            return Err(self.unwritten(io::Error::other(fault.to_string())));
        }
        let path = self.path.display();
        let what = format!("`{path}` is there, and is no snapshot that could be replaced");
        let failed = match error {
            Some(error) => Failed::in_vain(what, error),
            None => Failed::new(what),
        };
        Err(failed.help("name another file, or remove that one first"))
    }
}

/// Saves a VM that is called so in an empty file, which messages call `path`; returns how long the VM has stood still.
pub(crate) fn fill(
    file: &File,
    vm: &mut Connection,
    called: &str,
    path: &Path,
) -> Result<Duration, Failed> {
    let begun = Instant::now();
    let saving = vm.save(PATIENCE).map_err(|error| unsaved(called, error))?;
    let stood_still = fill_from(file, vm, &saving, called, path)?;
    // One of an earlier kvmlet has stood still all the time.
    Ok(stood_still.unwrap_or_else(|| begun.elapsed()))
}

/// The same of what has changed since a base.
fn fill_over(
    file: &File,
    vm: &mut Connection,
    called: &str,
    path: &Path,
    base: &Saved,
) -> Result<Duration, Failed> {
    let saving = vm.save_since(base.state.id, PATIENCE);
    let saving = saving.map_err(|error| unsaved(called, error))?;
    let sink = Sink::over(file, saving.most_bytes, base);
    let stood_still = drain(sink, vm, &saving, called, path)?;
    Ok(stood_still.unwrap_or_default())
}

/// Writes what is told of a VM; returns how long that has stood still, if it says so.
pub(crate) fn fill_from(
    file: &File,
    vm: &mut Connection,
    saving: &Saving,
    called: &str,
    path: &Path,
) -> Result<Option<Duration>, Failed> {
    let sink = Sink::new(file, saving.most_bytes);
    drain(sink, vm, saving, called, path)
}

fn drain(
    sink: Sink<'_>,
    vm: &mut Connection,
    saving: &Saving,
    called: &str,
    path: &Path,
) -> Result<Option<Duration>, Failed> {
    let unsaved = |error| unsaved(called, error);
    // It may be a file or a socket: it is read.
    let pieces = saving.pieces.try_clone().map(File::from);
    let told = pieces.and_then(|pieces| sink.fill(pieces));
    if let Err(error) = told {
        // The VM knows why it has told no more, if that is what is wrong.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            vm.saved(saving.number, PATIENCE).map_err(unsaved)?;
        }
        return Err(unwritten(path, error));
    }
    vm.saved(saving.number, PATIENCE).map_err(unsaved)
}

fn unsaved(called: &str, error: ConnectionError) -> Failed {
    let help = match &error {
        ConnectionError::Refused(failure) => failure.help.clone(),
        _ => None,
    };
    let failed = Failed::in_vain(format!("cannot save VM `{called}`"), error);
    match help {
        Some(help) => failed.help(help),
        None => failed,
    }
}

pub(crate) fn unwritten(path: &Path, error: io::Error) -> Failed {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let failed = Failed::in_vain(format!("cannot write `{}`", path.display()), error);
    match is_full {
        true => failed
            .help("make room on that file system: a VM takes as much as its guest has in memory"),
        false => failed,
    }
}
