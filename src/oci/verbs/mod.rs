//! The verbs: what the command line asks for, and how it is told.

mod build;
mod instance;
mod keep;
mod list;
mod load;
mod login;
mod look;
mod outdated;
mod pull;
mod push;
mod remove;
mod save;
mod search;

use kvmlet_command::oci::{Both, Image, Oci, Talk, Verb};
use kvmlet_command::{Failed, Outcome};
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{self, Image as Stored, Store, StoredImage};
use kvmlet_manager::Book;
use kvmlet_sys::{environment, streams};
use std::collections::BTreeSet;

use crate::confined::NOT_DONE;
use crate::credentials::Keyring;
use crate::mirrors::Place;
use crate::registry::{Options, Trust};
use crate::unpack;

/// Runs the command line of this process.
///
/// # Errors
/// When this process cannot be made safe. What a verb cannot do is told, and its exit code tells that.
pub fn run() -> Outcome {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == unpack::WORD) {
        return Ok(unpack::run(words));
    }
    streams::set_up();
    let line: Oci = kvmlet_command::parse(|command| command, |error| error);
    line.verbosity.start_log();
    // Rights that a file gives are for VMs.
    environment::drop_file_capabilities().map_err(Failed::of_environment)?;
    let outcome = match line.verb {
        Verb::Both(verb) => both(verb),
        Verb::Images(flags) => list::run(&flags),
        Verb::Rmi(flags) => remove::run(&flags),
        Verb::Search(flags) => search::run(&flags),
        Verb::Login(flags) => login::login(&flags),
        Verb::Logout(flags) => login::logout(&flags),
        Verb::Diff(flags) => instance::diff(&flags),
        Verb::Commit(flags) => instance::commit(&flags),
        Verb::Image(verb) => match verb {
            Image::Both(verb) => both(verb),
            Image::Ls(flags) => list::run(&flags),
            Image::Rm(flags) => remove::run(&flags),
            Image::Inspect(flags) => look::inspect(&flags),
            Image::History(flags) => look::history(&flags),
            Image::Check(_) => keep::check(),
            Image::Outdated(flags) => outdated::run(&flags),
            Image::Prune(flags) => keep::prune(&flags),
        },
    };
    outcome.or_else(|failed| {
        failed.print();
        Ok(NOT_DONE)
    })
}

fn both(verb: Both) -> Outcome {
    match verb {
        Both::Pull(flags) => pull::run(&flags),
        Both::Push(flags) => push::run(&flags),
        Both::Save(flags) => save::run(&flags),
        Both::Load(flags) => load::load(&flags),
        Both::Import(flags) => load::import(&flags),
        Both::Tag(flags) => keep::tag(&flags),
        Both::Build(flags) => build::run(&flags),
    }
}

/// The name of an image.
fn reference(text: &str) -> Result<Reference, Failed> {
    Reference::parse(text).map_err(Failed::new)
}

/// This user's store.
fn store() -> Result<Store, Failed> {
    Store::of_user().map_err(failed)
}

fn failed(error: store::Error) -> Failed {
    let help = error.help();
    Failed::with(error, help)
}

/// How to talk to the registries of some places.
fn options(talk: &Talk, places: &[Place]) -> Options {
    let named = places.iter();
    let repositories = named.map(|place| (&*place.registry, &*place.repository));
    Options {
        plain_http: talk.plain_http,
        is_insecure: false,
        shown: Keyring::of_user().look_up(repositories),
        trust: Trust::look_up(places.iter().map(|place| &*place.registry)),
    }
}

/// The image that is meant.
fn image(store: &Store, text: &str) -> Result<StoredImage, Failed> {
    let found = store.find(text).map_err(failed)?;
    found.ok_or_else(|| failed(store::Error::NoImage(text.into())))
}

/// The instances that have an image: they may be started again.
fn users(id: &kvmlet_image::Digest) -> Vec<String> {
    let listing = Book::of_user().and_then(|book| book.list());
    let instances = listing.map(|listing| listing.instances).unwrap_or_default();
    let id = id.to_string();
    let users = instances
        .iter()
        .filter(|view| view.asked.image_id.as_ref() == Some(&id));
    users.map(|view| view.called().to_owned()).collect()
}

/// Tells which images instances have: they may be started again.
fn in_use() -> Result<impl Fn(&Stored) -> bool, Failed> {
    let listing = Book::of_user()?.list()?;
    let instances = listing.instances.into_iter();
    let ids: BTreeSet<String> = instances.filter_map(|view| view.asked.image_id).collect();
    Ok(move |image: &Stored| ids.contains(&image.id.to_string()))
}
