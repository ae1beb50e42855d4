//! A template is made of an instance that has just been started.

use super::{readiness, working_set};
use crate::Failed;
use crate::beside::verbs;
use crate::instances::book;
use crate::snapshot::{As, Target, remove, save_instance};
use clap::Args;
use kvmlet_manager::{
    Book, InstanceId, MOST_TEMPLATE_BYTES, MOST_TEMPLATES, Snapshots, Template, Templates,
};
use kvmlet_sys::standard_error;
use rustix::process::setsid;
use std::io::{Read, Write, stdin};
use std::process::Stdio;

/// No description of a template is longer.
const MOST: u64 = 64 << 10;

/// Keep a template of an instance once its service is ready: for kvmlet itself. What it is of comes by standard input.
#[derive(Args)]
pub(crate) struct KeepTemplate {
    /// Its id.
    id: String,
    /// It goes on from the template: note what of that was read.
    #[arg(long)]
    pages: bool,
}

impl KeepTemplate {
    pub fn keep(&self) -> Result<(), Failed> {
        // Whoever is at the terminal means the service.
        let _ = setsid();
        let mut text = String::new();
        let read = stdin().take(MOST).read_to_string(&mut text);
        read.map_err(Failed::new)?;
        let template: Template = serde_json::from_str(&text).map_err(Failed::new)?;
        let id = self.id.clone().try_into().map_err(Failed::new)?;
        match self.pages {
            true => working_set::find_out(&id, &template),
            false => keep(&id, &template, false).map(drop)?,
        }
        Ok(())
    }
}

/// Has another process do it, or note what of it is read.
pub(super) fn begin(id: &InstanceId, template: &Template, pages: bool) -> Result<(), Failed> {
    let text = serde_json::to_vec(template).map_err(Failed::new)?;
    let mut command = verbs()?;
    command.args(["keep-template", id.as_str()]);
    command.args(pages.then_some("--pages"));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(Failed::new)?;
    let written = child.stdin.take().map(|mut input| input.write_all(&text));
    written.transpose().map_err(Failed::new)?;
    Ok(())
}

/// Waits until the service is ready, which is told where somebody waits, and keeps the template, unless somebody else is about
/// to. False then.
pub(super) fn keep(id: &InstanceId, template: &Template, told: bool) -> Result<bool, Failed> {
    let book = book()?;
    let instance = book.find(id.as_str())?;
    let templates = Templates::of(&book)?;
    let Some(_lock) = templates.try_lock(template)? else {
        log::info!("another run keeps the template");
        return Ok(false);
    };
    let view = readiness::wait(&book, &instance, told)?;
    let target = Target::of(&templates.path(template))?;
    let as_what = As {
        template: Some(template.clone()),
        id: None,
    };
    save_instance(&book, &instance, &view, &target, as_what, None)?;
    templates.use_now(template)?;
    make_room(&book, &templates)?;
    Ok(true)
}

/// Throws away what is more than there may be.
fn make_room(book: &Book, templates: &Templates) -> Result<(), Failed> {
    let snapshots = Snapshots::of(book)?;
    let _lock = snapshots.lock()?;
    for kept in snapshots.surplus(templates)? {
        let image = kept.asked.image_name().escape_debug();
        let gib = MOST_TEMPLATE_BYTES >> 30;
        standard_error::say(format_args!(
            "kvmlet: the template of `{image}` is thrown away, which was not used for the longest time: there may be {MOST_TEMPLATES}, of {gib} GiB in all"
        ));
        remove(&snapshots, &kept)?;
    }
    Ok(())
}
