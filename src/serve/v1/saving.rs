//! Saving a VM that is known by its control socket.

use super::alone::{PATIENCE, connect, problem};
use super::call::Call;
use super::copies::absolute;
use super::problem::{CONFLICT, NOT_DONE, Problem};
use super::vms::told;
use crate::http::Answer;
use kvmlet_control::Connection;
use kvmlet_manager::{Book, Kept, Snapshots, SnapshotsLock as Unneeded};
use kvmlet_vmm::snapshot::{Sink, noted, write_into, write_whole};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the VM is saved: a file by its path, or one that is open.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct SaveVm {
    /// The file, absolute. It replaces a snapshot of that name when it is whole, and no other file.
    #[serde(default, deserialize_with = "said")]
    #[schemars(with = "String", regex(pattern = r"^/[^\x00]*[^/\x00]$"))]
    pub file: Option<String>,
    /// A descriptor that comes along with the request, by its place among those: 0, since one may. It is of a regular file (or
    /// memory, memfd_create(2)) that is empty, and open for reading and writing.
    #[serde(default, deserialize_with = "said")]
    #[schemars(with = "u32", range(max = 0))]
    pub fd: Option<u32>,
}

/// A VM that was saved.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SavedVm {
    /// The file, if it was named by its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How long the VM stood still for that, in microseconds.
    pub stood_still_us: u64,
}

/// What is said is no `null`.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

pub fn snapshot(call: &Call) -> Result<Answer, Problem> {
    let SaveVm { file, fd } = call.read()?;
    let stood_still = match (&file, fd) {
        (Some(file), None) => {
            let path = absolute(file)?;
            let unwritten = unwritten("file", format!("`{}`", path.display()));
            let mut connection = connect(call)?;
            drop(unneeded(&path)?);
            let written = write_whole(&path, &unwritten, |file| {
                let stood_still = fill(&mut connection, file, &unwritten)?;
                // Others wait for the lock, and not for the disk.
                file.sync_all().map_err(&unwritten)?;
                Ok((stood_still, unneeded(&path)?))
            });
            written?.0
        }
        (None, Some(place)) => {
            let file = call.file(place)?;
            let unwritten = unwritten("fd", format!("descriptor {place}"));
            let mut connection = connect(call)?;
            write_into(file, &unwritten, |file| {
                fill(&mut connection, file, &unwritten)
            })?
        }
        _ => {
            let detail = "it is said where the VM is saved, by one of `file` and `fd`";
            return Err(Problem::in_field("file", detail));
        }
    };
    let stood_still_us = u64::try_from(stood_still.as_micros()).unwrap_or(u64::MAX);
    told(
        200,
        &SavedVm {
            file,
            stood_still_us,
        },
    )
}

/// Refuses to replace what other snapshots have as their base, as far as the book of this user knows them. It is so as long as what is
/// returned is there; who cannot have a book has none that needs anything.
fn unneeded(path: &Path) -> Result<Option<Unneeded>, Problem> {
    let snapshots = Book::of_user().and_then(|book| Snapshots::of(&book));
    let Ok(snapshots) = snapshots else {
        return Ok(None);
    };
    let lock = snapshots.lock()?;
    let has_place = |kept: &Kept| {
        let note = noted(&kept.path).ok().flatten();
        note.as_deref() == Some(kept.id.as_str().as_bytes())
    };
    match snapshots.needing(path, has_place)? {
        None => Ok(Some(lock)),
        Some(kept) => {
            let (path, id) = (path.display(), kept.id.short());
            let said =
                format!("`{path}` is the base of snapshot {id}, which is of no use without it");
            let mut problem = Problem::new(CONFLICT, said);
            problem.field = Some("file".into());
            problem.help = Some("name another file, or remove that snapshot first".into());
            Err(problem)
        }
    }
}

/// What is told where it cannot be written.
fn unwritten(field: &'static str, what: String) -> impl Fn(io::Error) -> Problem {
    move |error| {
        let mut problem = Problem::new(NOT_DONE, format!("{what} is not written"));
        problem.causes.push(error.to_string());
        problem.field = Some(field.into());
        problem
    }
}

/// Writes what is told of it.
fn fill(
    connection: &mut Connection,
    file: &File,
    unwritten: impl Fn(io::Error) -> Problem,
) -> Result<Duration, Problem> {
    let begun = Instant::now();
    let saving = connection.save(PATIENCE).map_err(problem)?;
    let filled = Sink::new(file, saving.most_bytes).fill(File::from(saving.pieces));
    // The VM knows why it has told no more, if that is what is wrong.
    if filled
        .as_ref()
        .is_err_and(|it| it.kind() == io::ErrorKind::UnexpectedEof)
    {
        connection.saved(saving.number, PATIENCE).map_err(problem)?;
    }
    filled.map_err(unwritten)?;
    let stood_still = connection.saved(saving.number, PATIENCE).map_err(problem)?;
    Ok(stood_still.unwrap_or_else(|| begun.elapsed()))
}
