//! Images made of a Containerfile. That is done by a program that is made for it, in a storage of its own (`place`); what
//! its images are made on comes out of the store, and what it has made goes into it, as any other archive does.

mod engine;
mod error;
mod named;
mod place;

pub use error::Error;

use crate::bounded;
use crate::load::{self, Source};
use crate::save;
use engine::Engine;
use kvmlet_image::Digest;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{Store, StoredImage};
use kvmlet_sys::regular;
use named::Named;
use place::{Place, Work};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// The longest Containerfile.
const MAX_FILE: u64 = 1 << 20;
/// What the program leaves in the build's directory.
const RESULT: &str = "image.tar";
/// What the Containerfile is called there.
const INPUT: &str = "Containerfile";
/// What a Containerfile is called where nobody says.
const USUAL: [&str; 2] = ["Containerfile", "Dockerfile"];

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The directory that files are copied from; nothing if there are none.
    pub context: Option<PathBuf>,
    /// The Containerfile; `-` is standard input, nothing one in the context.
    pub file: Option<PathBuf>,
    /// Names for the image.
    pub names: Vec<Reference>,
    /// `NAME=VALUE`, or a variable of the environment.
    pub arguments: Vec<String>,
    /// `NAME=VALUE`.
    pub labels: Vec<String>,
    /// The stage that is the last one.
    pub target: Option<String>,
    /// Every step is done anew.
    pub no_cache: bool,
    /// What a service in it may reach while it is built: as the program calls it.
    pub network: Option<String>,
    /// Nothing is said of its steps.
    pub quiet: bool,
}

/// Has an image that another one is made on, by a name, if the registry or the store gives it.
pub type Base<'a> = &'a dyn Fn(&str) -> Result<Option<StoredImage>, Error>;

/// Builds an image, and gives it its names.
///
/// # Errors
/// When no program for it is installed, or it fails, which it has told itself by then.
pub fn build(store: &Store, wanted: &Wanted, base: Base<'_>) -> Result<Digest, Error> {
    let program = engine::find()?;
    let place = Place::open(store)?;
    place.clear_if_alone(|cache, work| Engine::new(program, cache, work).drop_containers())?;
    let work = place.work()?;
    let engine = Engine::new(program, place.cache(program), work.path());
    let context = context(wanted, &work)?;
    let text = containerfile(wanted, &context)?;
    // Read once: it is what is looked at here. And this path has nothing in it that the program would split.
    let file = work.path().join(INPUT);
    fs::write(&file, &text).map_err(|source| Error::Place {
        path: file.clone(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    let named = named::images(&text, &wanted.arguments, wanted.target.as_deref());
    let contexts = lay_down(store, &engine, named, base)?;
    let built = engine.build(&engine::Steps {
        wanted,
        context: &context,
        file: &file,
        contexts: &contexts,
        result: RESULT,
    });
    if let Err(error) = built {
        drop(engine);
        drop(work);
        // It does not always take its containers away, such as on a full disk.
        let clear = |cache, work: &Path| Engine::new(program, cache, work).drop_containers();
        if let Err(error) = place.clear_behind(program, clear) {
            log::warn!("what the build has left is cleared by the next one: {error}");
        }
        return Err(error);
    }
    let result = work.path().join(RESULT);
    let loaded = load::load(store, &Source::Path(&result))?;
    let [loaded] = &loaded[..] else {
        return Err(Error::Result(loaded.len()));
    };
    for name in &wanted.names {
        store.tag(&loaded.id, name)?;
    }
    Ok(loaded.id)
}

/// Removes what builds have kept, unless one is at it.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(store: &Store) -> Result<bool, Error> {
    let Some(place) = Place::existing(store)? else {
        return Ok(true);
    };
    place.forget(|program, cache, work| Engine::new(program, cache, work).drop_images())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Read {
        path: path.into(),
        source,
    }
}

/// The directory of a build, by its absolute path.
fn context(wanted: &Wanted, work: &Work<'_>) -> Result<PathBuf, Error> {
    let Some(path) = &wanted.context else {
        return work.subdirectory("empty");
    };
    let whole = path.canonicalize().map_err(failed(path))?;
    match whole.is_dir() {
        true => Ok(whole),
        false => Err(Error::NoDirectory(path.clone())),
    }
}

/// What a Containerfile says.
fn containerfile(wanted: &Wanted, context: &Path) -> Result<Vec<u8>, Error> {
    let path = match &wanted.file {
        Some(path) if path == Path::new("-") => {
            let named = Path::new("standard input");
            return bounded::read(io::stdin().lock(), MAX_FILE).map_err(failed(named));
        }
        Some(path) => path.clone(),
        None => {
            let usual = USUAL.iter().map(|name| context.join(name));
            let found = usual.into_iter().find(|path| path.is_file());
            found.ok_or_else(|| Error::NoFile(context.into()))?
        }
    };
    let file = regular::read(&path, MAX_FILE + 1).map_err(failed(&path))?;
    bounded::read(&file[..], MAX_FILE).map_err(failed(&path))
}

/// Gives the program the images that a Containerfile names, and says what each name stands for where it would take it for
/// something else.
fn lay_down(
    store: &Store,
    engine: &Engine<'_>,
    named: Vec<Named>,
    base: Base<'_>,
) -> Result<Vec<(String, String)>, Error> {
    let mut contexts = Vec::new();
    let there = match named.is_empty() {
        true => Vec::new(),
        false => engine.images()?,
    };
    for Named(text) in named {
        let Some(stored) = base(&text)? else {
            continue;
        };
        let id = stored.image.id;
        if !there.contains(&id) {
            engine.pull(archive(store, stored)?, &text)?;
        }
        if let Ok(name) = Reference::parse(&text)
            && name.digest().is_none()
        {
            let whole = name.canonical();
            engine.tag(&id, &whole)?;
            contexts.push((text, whole));
        }
    }
    Ok(contexts)
}

/// An image as the program reads it.
fn archive(store: &Store, image: StoredImage) -> Result<File, Error> {
    let file = store.scratch().map_err(save::Error::Write)?;
    let mut out = BufWriter::with_capacity(256 << 10, file);
    save::save(store, &[(image, None)], &mut out)?;
    out.flush().map_err(save::Error::Write)?;
    let mut file = out
        .into_inner()
        .map_err(|error| save::Error::Write(error.into_error()))?;
    file.rewind().map_err(save::Error::Write)?;
    Ok(file)
}
