//! A template's file that is on the disk alone, as after a restart of the host: what services read of it until they are ready is
//! read ahead, once the first of them has shown what that is.

use super::{readiness, snapshot_at};
use crate::Failed;
use crate::instances::book;
use kvmlet_manager::{Book, InstanceId, Kept, Template, Templates, WorkingSet};
use kvmlet_sys::page_cache::is_cold;
use std::fs::File;

/// Has what an instance will read be read ahead; true if nobody knows yet what that is, and it is to be found out. Without either it
/// goes on from the file all the same, page by page.
pub(super) fn prepare(book: &Book, template: &Template, kept: &Kept) -> bool {
    let done = || -> Result<bool, Failed> {
        let file = File::open(&kept.path).map_err(Failed::new)?;
        match Templates::of(book)?.working_set(template, &kept.id) {
            Some(set) => set.read_ahead(&file).map(|()| false).map_err(Failed::new),
            None => is_cold(&file).map_err(Failed::new),
        }
    };
    done().unwrap_or_else(|failed| {
        log::info!("nothing of a template is read ahead: {failed}");
        false
    })
}

/// Notes what of a template was read, once the service of an instance that goes on from it is ready.
pub(super) fn find_out(id: &InstanceId, template: &Template) {
    let done = || -> Result<(), Failed> {
        let book = book()?;
        let instance = book.find(id.as_str())?;
        readiness::wait(&book, &instance, false)?;
        let templates = Templates::of(&book)?;
        let path = templates.path(template);
        let file = File::open(&path).map_err(Failed::new)?;
        let snapshot = snapshot_at(&path);
        let snapshot = snapshot.ok_or_else(|| Failed::new("the template is there no more"))?;
        let set = WorkingSet::look(snapshot, &file).map_err(Failed::new)?;
        Ok(templates.note_working_set(template, &set)?)
    };
    if let Err(failed) = done() {
        log::info!("what of a template is read is not noted: {failed}");
    }
}
