//! `kvmlet diff` and `commit`: what an instance has changed of its root, told or as an image.

use super::{failed, reference, store};
use crate::changes;
use crate::commit::{self, About};
use kvmlet_command::oci::{Commit, Diff};
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_control::agent::Agent;
use kvmlet_image::store::{Files, Store, StoredImage};
use kvmlet_manager::supervision::connect;
use kvmlet_manager::{Book, Moment, State, View};
use std::time::Duration;

/// How long a guest may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(30);

/// An instance, and a connection to the agent of its guest. An error starts with `vain`: what is then not done.
fn reach(name: &str, vain: &str) -> Result<(View, Agent), Failed> {
    let book = Book::of_user()?;
    let instance = book.find(name)?;
    let view = instance.view(book.name_of(instance.id())?)?;
    let called = view.called().to_string();
    let vain = |why: String| Failed::in_vain(format!("{vain} instance `{called}`"), why);
    if view.state == State::Suspended {
        return Err(
            vain("it is suspended".into()).help(format!("`kvmlet resume {called}` has it go on"))
        );
    }
    if view.end.is_some() {
        return Err(
            vain("it does not run, and what is in its memory went with it".into())
                .help(format!("`kvmlet start {called}` starts it")),
        );
    }
    if view.state == State::Paused {
        return Err(
            vain("it is paused".into()).help(format!("`kvmlet unpause {called}` has it go on"))
        );
    }
    match connect(instance.directory(), PATIENCE) {
        Ok(agent) => Ok((view, agent)),
        Err(error) => Err(vain(error.to_string())),
    }
}

/// The image that an instance was made of, if it was one of the store's.
fn base(store: &Store, view: &View) -> Result<Option<StoredImage>, Failed> {
    let Some(id) = &view.asked.image_id else {
        return Ok(None);
    };
    Ok(Some(super::image(store, id)?))
}

pub(super) fn diff(flags: &Diff) -> Outcome {
    let (view, mut agent) = reach(&flags.instance, "it is not told what has changed in")?;
    let store = store()?;
    let base = base(&store, &view)?;
    let below = base.map(|base| store.files(&base.image)).transpose();
    let below = below.map_err(failed)?;
    let all = changes::list(&mut agent, below.as_ref().map(Files::tree))?;
    let mut lines = String::new();
    for (change, path) in all {
        let path = String::from_utf8_lossy(&path);
        let plain = |c: char| !c.is_control() && c != '\\';
        let shown = match path.chars().all(plain) {
            true => path,
            // It stays one line, and steers no terminal.
            false => path.escape_debug().to_string().into(),
        };
        lines.push_str(&format!("{} /{shown}\n", change.letter()));
    }
    print(lines)?;
    Ok(0)
}

pub(super) fn commit(flags: &Commit) -> Outcome {
    let names = flags.name.as_deref().map(reference).transpose()?;
    if names.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Failed::new(
            "a digest is no name that an image can be given",
        ));
    }
    let (view, mut agent) = reach(&flags.instance, "no image is made of")?;
    let store = store()?;
    let Some(base) = base(&store, &view)? else {
        let called = view.called();
        let said = format!(
            "instance `{called}` runs no image of the store, but `{}`",
            view.asked.image
        );
        return Err(
            Failed::new(said).help("`kvmlet import` makes one of a root file system; run that")
        );
    };
    let scratch = store.scratch();
    let scratch = scratch.map_err(|error| Failed::in_vain("no image is made", error))?;
    let archived = changes::archive(&mut agent, scratch)?;
    let about = About {
        author: flags.author.clone(),
        message: flags.message.clone(),
        created: Moment::now().to_string(),
        changes: flags.change.clone(),
    };
    let names: Vec<_> = names.into_iter().collect();
    let made = commit::commit(&store, &base, &archived, &about, &names)?;
    print(format!("{}\n", made.image.id))?;
    Ok(0)
}
