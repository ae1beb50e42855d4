//! `kvmlet run --warm`: the first run of a service boots, and keeps a template of it once it is ready; others of the same go on
//! from that, each as a machine of its own.

mod identity;
mod keeping;
mod readiness;
mod refusal;
mod working_set;

use super::made::Made;
use super::root::Root;
use crate::boot::StartedBy;
use crate::keep::waiting;
use crate::session::Wanted;
use crate::snapshot::{has_place, id_in, remove};
use crate::{Failed, Outcome};
pub(crate) use keeping::KeepTemplate;
use kvmlet_manager::{Asked, Book, InstanceId, Kept, Name, Snapshots, Template, Templates};
use kvmlet_sys::standard_error;
use kvmlet_vmm::snapshot::noted;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The template of what is asked for.
pub(super) struct Warm {
    template: Template,
    path: PathBuf,
    /// The one that there is.
    kept: Option<Kept>,
}

impl Warm {
    /// Of what is asked for. One that is there and is not of that any more is thrown away, which is told.
    pub fn find(book: &Book, asked: &Asked, root: &Root) -> Result<Self, Failed> {
        refusal::refuse_cold(asked, root)?;
        let template = identity::of(asked, root)?;
        let path = Templates::of(book)?.path(&template);
        let mut warm = Self {
            template,
            path,
            kept: None,
        };
        if let Some(kept) = warm.there(book)? {
            let was = kept.template.as_ref();
            let changed = was.map(|was| was.changed(&warm.template).collect::<Vec<_>>());
            match changed.unwrap_or_default().join(", ") {
                changed if changed.is_empty() => {
                    warm.kept = Some(kept);
                    // One that cannot be noted as used goes sooner.
                    let used = Templates::of(book)?.use_now(&warm.template);
                    used.unwrap_or_else(|error| log::info!("{error}"));
                }
                changed => {
                    let why = format_args!("since it was made, there has changed: {changed}");
                    warm.throw_away(book, &kept, &why)?;
                }
            }
        }
        Ok(warm)
    }

    /// Has an instance go on from it, if it is there.
    pub fn apply(&self, asked: &mut Asked) {
        asked.snapshot = self.kept.as_ref().map(|_| self.path.clone());
    }

    /// Has what an instance will read of it be read beforehand, or be found out.
    fn read_ahead(&self, book: &Book, instance: &InstanceId) {
        let kept = self.kept.as_ref();
        if kept.is_some_and(|kept| working_set::prepare(book, &self.template, kept))
            && let Err(failed) = keeping::begin(instance, &self.template, true)
        {
            log::info!("what of a template is read is not found out: {failed}");
        }
    }

    /// It was there, and nothing came of it: but what boots, runs.
    fn has_failed(&self, book: &Book, why: &Failed) -> Result<(), Failed> {
        match &self.kept {
            Some(kept) => self.throw_away(book, kept, why),
            None => Ok(()),
        }
    }

    /// Keeps one of an instance that was just started and has booted, unless somebody else does: beside this process, which has that
    /// one's streams, or by it.
    fn keep(&self, instance: &InstanceId, beside: bool) {
        let kept = match beside {
            true => keeping::begin(instance, &self.template, false),
            false => keeping::keep(instance, &self.template, true).map(drop),
        };
        if let Err(failed) = kept {
            tell_unkept(&failed);
        }
    }

    fn there(&self, book: &Book) -> Result<Option<Kept>, Failed> {
        // What somebody else has put there is no template of this user's.
        if !Templates::of(book)?.is_own(&self.template) {
            return Ok(None);
        }
        let Some(id) = snapshot_at(&self.path) else {
            return Ok(None);
        };
        let kept = Snapshots::of(book)?.find(&id)?;
        Ok(kept.filter(|kept| kept.path == self.path && kept.template.is_some()))
    }

    fn throw_away(
        &self,
        book: &Book,
        kept: &Kept,
        why: &dyn std::fmt::Display,
    ) -> Result<(), Failed> {
        // Somebody else may have made a new one meanwhile.
        if has_place(kept) {
            let image = kept.asked.image_name().escape_debug();
            let why = why.to_string();
            let why = why.trim_start_matches("error: ").trim_end();
            standard_error::say(format_args!(
                "kvmlet: the template of `{image}` is thrown away, and its service boots: {why}"
            ));
        }
        remove(&Snapshots::of(book)?, kept)
    }
}

/// Which snapshot a file is, if it is one of an instance.
fn snapshot_at(path: &Path) -> Option<InstanceId> {
    id_in(noted(path).ok().flatten())
}

/// A run with a template, or for one.
pub(super) struct WarmRun<'a> {
    pub book: &'a Book,
    pub warm: Warm,
    pub name: Option<Name>,
    pub wanted: Wanted,
    pub detached: bool,
}

impl WarmRun<'_> {
    /// Starts an instance that was made of what is asked: from the template, if there is one; if that cannot be, it boots.
    pub fn start(self, made: Made<'_>, mut asked: Asked, ready: Option<OwnedFd>) -> Outcome {
        if asked.snapshot.is_none() {
            return self.boot(made, &asked.id, ready, None);
        }
        self.warm.read_ahead(self.book, &asked.id);
        // What is not told by the first is for the second.
        let again = ready.as_ref().map(OwnedFd::try_clone).transpose();
        let again = again.map_err(Failed::new)?;
        let unstarted = match made.start_or_not(ready) {
            Ok(code) => return Ok(code),
            Err(unstarted) if unstarted.was_stopped() => return unstarted.give_up(),
            Err(unstarted) => unstarted,
        };
        let why = unstarted.forget()?;
        asked.snapshot = None;
        let (wanted, detached) = (self.wanted, self.detached);
        let made = Made::new(
            self.book,
            self.name.as_ref(),
            asked.clone(),
            waiting(&asked.id, StartedBy::Run)?,
            wanted,
            detached,
        )?;
        self.boot(made, &asked.id, again, Some(&why))
    }

    /// Boots it, and keeps a template. Where it could not go on from the one that there is, that was not at fault if it does not
    /// boot, either.
    fn boot(
        self,
        made: Made<'_>,
        id: &InstanceId,
        ready: Option<OwnedFd>,
        failed: Option<&Failed>,
    ) -> Outcome {
        if !self.detached {
            if let Some((kept, why)) = self.warm.kept.as_ref().zip(failed) {
                tell_cold(kept, why);
            }
            // It takes the place of the one that there is.
            self.warm.keep(id, true);
            return made.start(ready);
        }
        match made.start_or_not(ready) {
            Ok(code) => {
                let thrown = failed.map(|why| self.warm.has_failed(self.book, why));
                if let Some(Err(unthrown)) = thrown {
                    tell_unkept(&unthrown);
                }
                self.warm.keep(id, false);
                Ok(code)
            }
            Err(unstarted) => unstarted.give_up(),
        }
    }
}

/// A run that its terminal waits for boots, instead of going on from a template.
fn tell_cold(kept: &Kept, why: &Failed) {
    let (image, why) = (kept.asked.image_name().escape_debug(), why.to_string());
    let why = why.trim_start_matches("error: ").trim_end();
    standard_error::say(format_args!(
        "kvmlet: `{image}` cannot go on from its template, and boots: {why}"
    ));
}

/// That no template is kept is no failure of what runs.
fn tell_unkept(failed: &Failed) {
    let why = failed.to_string();
    let why = why.trim_start_matches("error: ").trim_end();
    standard_error::say(format_args!("kvmlet: no template is kept: {why}"));
}

/// As a verb, which tells and does not fail.
pub(crate) fn keep_beside(verb: &KeepTemplate) -> Outcome {
    if let Err(failed) = verb.keep() {
        tell_unkept(&failed);
    }
    Ok(0)
}
