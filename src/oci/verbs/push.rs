//! `kvmlet push`.

use super::{failed, image, options, reference, store};
use crate::confined::confine;
use crate::mirrors::Registries;
use crate::push;
use crate::registry::{Options, Registry};
use kvmlet_command::oci::Push;
use kvmlet_command::{Failed, Outcome, print};
use std::io::{self, IsTerminal};

pub(super) fn run(flags: &Push) -> Outcome {
    let name = reference(&flags.name)?;
    if name.digest().is_some() {
        let said = "an image is pushed by a name, and not by its digest";
        return Err(Failed::new(said).help("`kvmlet tag` gives it a name"));
    }
    let store = store()?;
    let image = image(&store, &flags.name)?;
    // An image goes to its own place, and to no mirror.
    let places = Registries::of_user()?.places(&name)?;
    let own = places
        .last()
        .filter(|place| place.registry == name.registry());
    let options = Options {
        is_insecure: own.is_some_and(|place| place.is_insecure),
        ..options(&flags.talk, &places)
    };
    confine(Some(&store))?;
    let registry = Registry::connect(name.registry(), &options)?;
    if !flags.quiet {
        let repository = format!("{}/{}", name.registry(), name.repository());
        print(format!("The push refers to repository [{repository}]\n"))?;
    }
    let show = !flags.quiet && io::stderr().is_terminal();
    let pushed = push::push(&store, &registry, &image.image, &name, show)?;
    let known = name.at_digest(pushed.digest);
    store.tag(&image.image.id, &known).map_err(failed)?;
    match flags.quiet {
        true => print(format!("{}\n", name.canonical()))?,
        false => {
            let tag = name.tag().unwrap_or_default();
            print(format!(
                "{tag}: digest: {} size: {}\n",
                pushed.digest, pushed.size
            ))?;
        }
    }
    Ok(0)
}
