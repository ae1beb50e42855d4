//! `kvmlet build`.

use super::{options, reference, store};
use crate::build::{self, Error, Wanted};
use crate::confined::apart;
use crate::mirrors::Registries;
use crate::pull;
use kvmlet_command::oci::Build;
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_image::config::Platform;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{Store, StoredImage};
use std::io::{self, IsTerminal};
use std::path::Path;

pub(super) fn run(flags: &Build) -> Outcome {
    if let Some(platform) = &flags.platform {
        check_platform(platform)?;
    }
    let names = flags.tag.iter().map(|text| reference(text));
    let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
    if names.iter().any(|name| name.digest().is_some()) {
        return Err(Failed::new(
            "a digest is no name that an image can be given",
        ));
    }
    let input = Path::new("-");
    let (context, file) = match flags.context == input {
        true if flags.file.is_some() => {
            return Err(Failed::new(
                "a Containerfile comes from a file or over standard input, not both",
            ));
        }
        true => (None, Some(input.into())),
        false => (Some(flags.context.clone()), flags.file.clone()),
    };
    if file.as_deref() == Some(input) && io::stdin().is_terminal() {
        return Err(Failed::new("nothing is piped in").help("name a Containerfile, or pipe one in"));
    }
    let wanted = Wanted {
        context,
        file,
        names,
        arguments: flags.build_arg.clone(),
        labels: flags.label.clone(),
        target: flags.target.clone(),
        no_cache: flags.no_cache,
        network: flags.network.clone(),
        quiet: flags.quiet,
    };
    let store = store()?;
    let built = build::build(&store, &wanted, &|name| base(&store, flags, name));
    let id = built.map_err(|error| match error {
        Error::Base(_) => Failed::told(error),
        other => other.into(),
    })?;
    match flags.quiet {
        true => print(format!("{id}\n"))?,
        false => {
            let tagged = wanted.names.iter();
            let tagged = tagged.map(|name| format!("Successfully tagged {name}\n"));
            print(format!(
                "Successfully built {}\n{}",
                id.short(),
                tagged.collect::<String>()
            ))?;
        }
    }
    Ok(0)
}

fn check_platform(text: &str) -> Result<(), Failed> {
    let ours = Platform::of_guests();
    match pull::platform(text) {
        Some(asked) if (&asked.os, &asked.architecture) == (&ours.os, &ours.architecture) => Ok(()),
        Some(asked) => Err(Failed::new(format!(
            "images for {asked} are not built here: what they run while they are built runs on this machine, {ours}"
        ))),
        None => Err(Failed::new(format!(
            "`{}` is not a platform",
            text.escape_debug()
        ))),
    }
}

/// What an image is built on: what the store has, or else what the registry gives; newer than that if it is asked for.
fn base(store: &Store, flags: &Build, text: &str) -> Result<Option<StoredImage>, Error> {
    let there = store.find(text)?;
    let Ok(name) = Reference::parse(text) else {
        return Ok(there);
    };
    let by_id = there
        .as_ref()
        .is_some_and(|it| !it.image.names.contains(&name));
    if by_id || (there.is_some() && !flags.pull) {
        return Ok(there);
    }
    let registries = Registries::of_user()?;
    let wanted = pull::Wanted {
        reference: name,
        platform: None,
    };
    let show = !flags.quiet && io::stderr().is_terminal();
    let places = registries.places(&wanted.reference)?;
    let options = options(&flags.talk, &places);
    let is_pulled = apart(Some(store), || {
        pull::pull(store, places, &options, &wanted, show)?;
        Ok(0)
    })?;
    match is_pulled {
        true => Ok(store.find(text)?),
        false => Err(Error::Base(text.into())),
    }
}

/// Has builds forget what they have kept.
pub(super) fn forget(store: &Store) -> Result<(), Failed> {
    match build::forget(store)? {
        true => Ok(()),
        false => {
            log::warn!("what builds have kept stays: one is at work");
            Ok(())
        }
    }
}
