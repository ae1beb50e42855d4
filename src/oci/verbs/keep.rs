//! `kvmlet tag`, and what looks after the store: `kvmlet image check` and `prune`.

use super::remove::tell;
use super::{build, failed, image, in_use, reference, store};
use kvmlet_command::oci::{Prune, Tag};
use kvmlet_command::shown::decimal;
use kvmlet_command::{Failed, Outcome, agreed, print};

pub(super) fn tag(flags: &Tag) -> Outcome {
    let name = reference(&flags.name)?;
    if name.digest().is_some() {
        let said = "a digest is no name that an image can be given";
        return Err(Failed::new(said).help("give it a tag: NAME:TAG"));
    }
    let store = store()?;
    let image = image(&store, &flags.image)?;
    store.tag(&image.image.id, &name).map_err(failed)?;
    Ok(0)
}

pub(super) fn check() -> Outcome {
    let checked = store()?.check().map_err(failed)?;
    let mut text = format!(
        "{} layers and {} images are as they should be\n",
        checked.layers, checked.images
    );
    for broken in &checked.broken {
        let names: Vec<String> = broken.names.iter().map(ToString::to_string).collect();
        let names = match names.is_empty() {
            true => String::new(),
            false => format!(" ({})", names.join(", ")),
        };
        text.push_str(&format!(
            "broken: {}{names}: {}\n",
            broken.digest, broken.why
        ));
    }
    print(text)?;
    match checked.broken.is_empty() {
        true => Ok(0),
        false => Err(Failed::new("not all of the store is as it should be")
            .help("pull or load the images that are named again")),
    }
}

pub(super) fn prune(flags: &Prune) -> Outcome {
    let what = match flags.all {
        true => "all images that no instance has",
        false => "all images without a name",
    };
    if !flags.force && !agreed("images", format_args!("{what} are going to be removed."))? {
        return Ok(0);
    }
    let store = store()?;
    let removed = store.prune(flags.all, &in_use()?).map_err(failed)?;
    if flags.all {
        build::forget(&store)?;
    }
    tell(&removed)?;
    print(format!(
        "Total reclaimed space: {}\n",
        decimal(removed.bytes)
    ))?;
    Ok(0)
}
