//! `kvmlet pull`.

use super::{options, reference, store};
use crate::confined::confine;
use crate::mirrors::Registries;
use crate::pull::{self, Wanted};
use kvmlet_command::oci::Pull;
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_sys::standard_error;
use std::io::{self, IsTerminal};

pub(super) fn run(flags: &Pull) -> Outcome {
    let reference = reference(&flags.name)?;
    let platform = flags.platform.as_deref().map(|text| {
        pull::platform(text).ok_or_else(|| {
            Failed::new(format!("`{}` is not a platform", text.escape_debug()))
                .help("name it as linux/amd64, linux/arm64/v8, ...")
        })
    });
    let wanted = Wanted {
        reference,
        platform: platform.transpose()?,
    };
    let reference = &wanted.reference;
    let quiet = flags.quiet || flags.quiet_unless_terminal;
    let show = !flags.quiet && io::stderr().is_terminal();
    let store = store()?;
    if show && reference.tag() == Some("latest") && !flags.name.ends_with(":latest") {
        standard_error::say(format_args!("Using default tag: latest"));
    }
    let registries = Registries::of_user()?;
    let places = registries.places(reference)?;
    let options = options(&flags.talk, &places);
    confine(Some(&store))?;
    let pulled = pull::pull(&store, places, &options, &wanted, show)?;
    if !quiet {
        let status = match pulled.is_new {
            true => "Downloaded newer image for",
            false => "Image is up to date for",
        };
        print(format!(
            "Digest: {}\nStatus: {status} {reference}\n",
            pulled.digest
        ))?;
    }
    if !flags.quiet_unless_terminal {
        print(format!("{}\n", reference.canonical()))?;
    }
    Ok(0)
}
