//! A snapshot that is opened, with its base if it has what has changed since another one.

use crate::Failed;
use crate::instances::book;
use kvmlet_manager::{InstanceId, Kept, Snapshots};
use kvmlet_vmm::snapshot::{Error, Fault, Saved, noted};
use std::path::Path;

/// Opens a snapshot, with its base if it has one: that which is named, or else that which the book of who has taken it names.
pub(crate) fn open(path: &Path, base: Option<&Path>) -> Result<Saved, Error> {
    if let Some(base) = base {
        return Saved::open_over(path, base);
    }
    match Saved::open(path) {
        Err(error) if matches!(error.fault, Fault::Difference) => {
            match known(path).and_then(|kept| kept.base) {
                Some(base) => Saved::open_over(path, &base),
                None => Err(error),
            }
        }
        opened => opened,
    }
}

/// What is noted of a snapshot, if it is noted here.
pub(super) fn known(path: &Path) -> Option<Kept> {
    let note = String::from_utf8(noted(path).ok()??).ok()?;
    let id: InstanceId = note.try_into().ok()?;
    let snapshots = Snapshots::of(&book().ok()?).ok()?;
    snapshots.find(&id).ok()?
}

/// Says of a snapshot that cannot be used, or whose base cannot, what helps.
pub(crate) fn unusable(path: &Path, error: Error) -> Failed {
    let help = match &error.fault {
        Fault::Difference => "say which file that is: --base FILE",
        Fault::Whole => "leave out --base",
        _ if error.path != path => "name the file that was the base, as it was then: --base FILE",
        _ => "name a file that `kvmlet snapshot` has written, as it was written",
    };
    Failed::new(error).help(help)
}
