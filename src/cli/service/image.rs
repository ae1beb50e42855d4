//! Images of the store, by the names that users give them.

use crate::Failed;
use crate::beside::run_program;
use clap::ValueEnum;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{Error, Image, Store, StoredImage};
use kvmlet_spec::{Extent, Extents};
use std::process::ExitStatus;

/// Whatever runs here runs it.
const ARCHITECTURE: &str = "amd64";

/// What pulls images.
const PROGRAM: &str = "kvmlet-oci";

/// When an image is pulled from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pull {
    /// Each time: it may have changed there.
    Always,
    /// If it is not here.
    Missing,
    /// By other commands only.
    Never,
}

/// The image of a name, an id or the beginning of one, pulled if that is wanted.
pub(super) fn find(text: &str, pull: Pull) -> Result<StoredImage, Failed> {
    let store = Store::of_user().map_err(failed)?;
    let name = Reference::parse(text);
    if let (Pull::Always, Ok(name)) = (pull, &name) {
        pulled(name)?;
    }
    let mut found = store.find(text).map_err(failed)?;
    if let (Pull::Missing, None, Ok(name)) = (pull, &found, &name) {
        log::info!("image `{name}` is not here, and is pulled");
        pulled(name)?;
        found = store.find(text).map_err(failed)?;
    }
    let stored = found.ok_or_else(|| match name {
        Ok(name) => Failed::new(format!("image `{name}` is not here"))
            .help(format!("`kvmlet pull {name}` brings it, if its registry has it")),
        Err(error) => Failed::new(error).help(
            "name an image, or the file of a root file system, or a directory with all that the service needs",
        ),
    })?;
    refuse_foreign(text, &stored.image)?;
    Ok(stored)
}

/// Has an image pulled, by a program that says itself what stands in the way.
fn pulled(name: &Reference) -> Result<(), Failed> {
    let name = name.canonical();
    let status = run_program(PROGRAM, &["pull", "--quiet-unless-terminal", &name])?;
    ended(&name, status)
}

fn ended(name: &str, status: ExitStatus) -> Result<(), Failed> {
    let text = format!("image `{name}` cannot be pulled");
    match status.code() {
        Some(0) => Ok(()),
        Some(_) => Err(Failed::told(text)),
        None => Err(Failed::in_vain(
            text,
            format!("`{PROGRAM}` has ended by {status}"),
        )),
    }
}

/// Says that a file or directory is run and not the image of the same name, where there is one.
pub(super) fn tell_that_path_is_taken(text: &str) -> Result<(), Failed> {
    let store = Store::of_user().map_err(failed)?;
    if let (Ok(Some(_)), Ok(name)) = (store.find(text), Reference::parse(text)) {
        log::warn!(
            "`{text}` is a file or directory here, and an image, too: the file or directory is run; the image is {}",
            name.canonical()
        );
    }
    Ok(())
}

/// Its disk, as a VM has it.
pub(super) fn extents(image: &Image) -> Result<Extents, Failed> {
    let extents = image.extents.iter();
    let extents = extents.map(|extent| Extent::new(&extent.path, extent.offset, extent.length));
    let extents: Vec<_> = extents.collect::<Result<_, _>>().map_err(Failed::new)?;
    extents.try_into().map_err(Failed::new)
}

fn refuse_foreign(text: &str, image: &Image) -> Result<(), Failed> {
    let platform = &image.config.platform;
    match platform.os == "linux" && platform.architecture == ARCHITECTURE {
        true => Ok(()),
        false => {
            let (os, machine) = (&platform.os, &platform.architecture);
            let text = format!(
                "image `{text}` is made for {os}/{machine}, and this is linux/{ARCHITECTURE}"
            );
            Err(Failed::new(text).help("pull it for this machine: its registry may have it"))
        }
    }
}

fn failed(error: Error) -> Failed {
    match error {
        Error::Ambiguous { .. } => Failed::new(error).help("give more of its digits"),
        _ => Failed::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn why_an_image_is_not_pulled_is_told_once() {
        let ended = |status| ended("docker.io/library/x:1", ExitStatus::from_raw(status));
        assert!(ended(0).is_ok());
        // By the program, wherever it came to an end of its own.
        for code in [1, 125] {
            assert_eq!(ended(code << 8).unwrap_err().to_string(), "");
        }
        assert_eq!(
            ended(9).unwrap_err().to_string(),
            "error: image `docker.io/library/x:1` cannot be pulled\n  caused by: `kvmlet-oci` has ended by signal: 9 (SIGKILL)\n"
        );
    }
}
