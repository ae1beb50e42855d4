//! VMs that are saved, and others that go on from where they were: by `kvmlet snapshot`, `clone` and `restore`.

use super::call::Call;
use super::operations::{self, Kind, Operation};
use super::problem::{HOST, Problem};
use super::route::MOST_WAIT_S;
use super::vms::told;
use crate::http::Answer;
use kvmlet_command::beside::{self, KVMLET, VERBS};
use kvmlet_manager::volumes::forget;
use kvmlet_manager::{Book, Error, InstanceId, Name, Snapshots, State};
use kvmlet_spec::PortMappings;
use kvmlet_vmm::snapshot::noted;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// How long is waited if nothing is said, in seconds.
const WAIT_S: u64 = 30;

/// As many ports, volumes and the like are said at once.
pub(super) const MOST: usize = 64;

type Done = Result<Answer, Problem>;

/// Where a VM is saved.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotVm {
    /// The file, absolute. It replaces a snapshot of that name when it is whole, and no other file.
    #[schemars(regex(pattern = r"^/[^\x00]*[^/\x00]$"))]
    pub file: String,
    /// A whole snapshot, by its file, absolute: no more is saved than what has changed since. It has to be the last one of this VM, or the one
    /// that it goes on from, and to stay.
    #[schemars(regex(pattern = r"^/[^\x00]*[^/\x00]$"))]
    pub base: Option<String>,
}

/// What becomes of a VM's copy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneVm {
    /// What it is called.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{1,199}$"))]
    pub name: String,
    /// Ports of the host that lead to it instead, as `[ADDRESS:][HOST:]GUEST[/tcp|udp]`. Without any the host chooses them.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub publish: Vec<String>,
    /// It is removed when it has ended.
    #[serde(default)]
    pub remove: bool,
}

/// From what a VM goes on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreVm {
    /// The file, absolute, which is a snapshot that this user has taken.
    #[schemars(regex(pattern = r"^/[^\x00]*[^/\x00]$"))]
    pub file: String,
    /// Ports of the host that lead to it, instead of those that led to the one that was saved.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub publish: Vec<String>,
    /// It is removed when it has ended.
    #[serde(default)]
    pub remove: bool,
}

/// Saves a VM.
pub fn snapshot(call: &Call) -> Done {
    let SnapshotVm { file, base } = call.read()?;
    let path = absolute(&file)?;
    if let Some(base) = &base {
        absolute_in("base", base)?;
    }
    let (instance, view) = call.look()?;
    refuse_ended(view.called(), view.state)?;
    let id = InstanceId::random().map_err(|error| Problem::because(HOST, &error))?;
    let mut command = program(VERBS)?;
    command.args(["snapshot", "--id", id.as_str()]);
    command.args(base.iter().map(|base| format!("--base={base}")));
    command.args(["--", instance.id().as_str(), &file]);
    let book = Arc::clone(call.book()?);
    begun_with(operations::begin(
        Kind::Snapshot,
        file,
        command,
        move || {
            let _ = forget_snapshot(&book, &path, &id);
            false
        },
    )?)
}

/// Has a VM become a file. Whoever is killed while it does that has the VM go on.
pub fn suspend(call: &Call) -> Done {
    let (instance, view) = call.look()?;
    refuse_ended(view.called(), view.state)?;
    let mut command = program(VERBS)?;
    command.args(["suspend", "--", instance.id().as_str()]);
    let made = view.called().to_owned();
    let settle = move || instance.settle_suspension().unwrap_or(false);
    begun_with(operations::begin(Kind::Suspend, made, command, settle)?)
}

/// Has another VM go on from where one is.
pub fn clone(call: &Call) -> Done {
    let wanted: CloneVm = call.read()?;
    let name = named(&wanted.name)?;
    let (instance, view) = call.look()?;
    refuse_ended(view.called(), view.state)?;
    let made = Made::new(call, name)?;
    let mut command = program(VERBS)?;
    command.arg("clone");
    made.describe(&mut command, &wanted.publish, wanted.remove)?;
    command.args(["--", instance.id().as_str(), made.name.as_str()]);
    made.begin(Kind::Clone, command)
}

/// Has a VM go on from a file.
pub fn restore(call: &Call) -> Done {
    let wanted: RestoreVm = call.read()?;
    absolute(&wanted.file)?;
    let made = Made::new(call, call.new_name()?)?;
    let mut command = program(KVMLET)?;
    command.args(["restore", "--detach"]);
    made.name(&mut command);
    made.describe(&mut command, &wanted.publish, wanted.remove)?;
    command.args(["--", &wanted.file]);
    made.begin(Kind::Restore, command)
}

/// All operations.
pub fn list(_: &Call) -> Done {
    told(200, &operations::list())
}

/// One of them.
pub fn tell(call: &Call) -> Done {
    told(200, &operations::tell(&call.name)?)
}

/// One of them, when it is over or the time is up.
pub fn wait(call: &Call) -> Done {
    let seconds = call.number("timeout", 0..=MOST_WAIT_S)?.unwrap_or(WAIT_S);
    let patience = Duration::from_secs(seconds);
    told(200, &operations::wait(&call.name, patience, &call.gone)?)
}

/// Ends one.
pub fn cancel(call: &Call) -> Done {
    told(200, &operations::cancel(&call.name)?)
}

fn begun_with(operation: Operation) -> Done {
    let place = format!("/v1/operations/{}", operation.id);
    Ok(told(202, &operation)?.with("Location", place))
}

/// A VM that is to be made.
pub(super) struct Made {
    book: Arc<Book>,
    id: InstanceId,
    name: Name,
}

impl Made {
    /// One of a name that nobody has: it is looked at again when it is made.
    pub(super) fn new(call: &Call, name: Name) -> Result<Self, Problem> {
        let book = Arc::clone(call.book()?);
        if let Ok(holder) = book.find(name.as_str())
            && book.name_of(holder.id())?.as_ref() == Some(&name)
        {
            let holder = holder.id().clone();
            return Err(Error::NameTaken { name, holder }.into());
        }
        let id = InstanceId::random().map_err(|error| Problem::because(HOST, &error))?;
        Ok(Self { book, id, name })
    }

    /// Says what it is called.
    pub(super) fn name(&self, command: &mut Command) {
        command.args(["--name", self.name.as_str()]);
    }

    /// What is said of it, as the verbs take it.
    pub(super) fn describe(
        &self,
        command: &mut Command,
        publish: &[String],
        remove: bool,
    ) -> Result<(), Problem> {
        command.args(["--started-by", "api-made", "--id", self.id.as_str()]);
        command.args(remove.then_some("--rm"));
        if publish.len() > MOST {
            let detail = format!("`publish` has {MOST} entries at most");
            return Err(Problem::in_field("publish", detail));
        }
        for (place, ports) in publish.iter().enumerate() {
            let field = || format!("publish[{place}]");
            let read = ports.parse::<PortMappings>();
            read.map_err(|error| Problem::in_field(field(), error.to_string()))?;
            command.arg("--publish").arg(ports);
        }
        Ok(())
    }

    pub(super) fn begin(self, kind: Kind, command: Command) -> Done {
        let makes = self.name.to_string();
        let Self { book, id, .. } = self;
        begun_with(operations::begin(kind, makes, command, move || {
            // Nobody has been told of it.
            if let Ok(instance) = book.find(id.as_str())
                && let Ok(view) = book.view(&instance)
                && book.end_and_remove(&instance).is_ok()
            {
                let _ = book.tell("destroy", &view.id, view.name.as_ref(), []);
                let _ = forget(&book, &view.asked);
            }
            false
        })?)
    }
}

pub(super) fn program(name: &str) -> Result<Command, Problem> {
    beside::find(name).map_err(|failed| Problem::new(HOST, failed.first_line()))
}

fn named(name: &str) -> Result<Name, Problem> {
    let name = name.parse::<Name>();
    name.map_err(|error| Problem::in_field("name", error.to_string()))
}

pub(super) fn absolute(file: &str) -> Result<PathBuf, Problem> {
    absolute_in("file", file)
}

fn absolute_in(field: &'static str, file: &str) -> Result<PathBuf, Problem> {
    let path = Path::new(file);
    let refuse = |detail: String| Err(Problem::in_field(field, detail));
    match (path.is_absolute(), path.file_name()) {
        _ if file.contains('\0') => refuse("a path has no zero byte in it".into()),
        (true, Some(_)) if !file.ends_with('/') => Ok(path.into()),
        _ => refuse(format!(
            "`{}` is not the absolute path of a file",
            file.escape_debug()
        )),
    }
}

fn refuse_ended(called: &str, state: State) -> Result<(), Problem> {
    match state {
        State::Running | State::Paused => Ok(()),
        state => Err(Error::NotRunning {
            called: called.into(),
            state,
        }
        .into()),
    }
}

/// Forgets a snapshot, and removes its file if it has come to have its name.
fn forget_snapshot(book: &Book, path: &Path, id: &InstanceId) -> Result<(), Error> {
    let snapshots = Snapshots::of(book)?;
    let _lock = snapshots.lock()?;
    if snapshots.find(id)?.is_none() {
        return Ok(());
    }
    let note = noted(path).ok().flatten();
    if note.as_deref() == Some(id.as_str().as_bytes()) {
        // Its user may have removed it by now.
        let _ = std::fs::remove_file(path);
    }
    snapshots.forget(id)
}
