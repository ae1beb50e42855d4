//! `kvmlet image outdated`.

use super::{failed, image, store};
use crate::outdated::alpine::CACHE;
use crate::outdated::index::LISTS;
use crate::outdated::{Found, Search};
use kvmlet_command::format::Format;
use kvmlet_command::oci::Outdated;
use kvmlet_command::{Outcome, print};
use kvmlet_image::store::Image;
use kvmlet_sys::standard_error;
use serde_json::{Value, json};
use std::path::Path;

const TABLE: &str = "{{.Image}}\t{{.Package}}\t{{.Installed}}\t{{.Available}}";

pub(super) fn run(flags: &Outdated) -> Outcome {
    let format = Format::parse(flags.format.as_deref(), TABLE)?;
    let store = store()?;
    let images = match flags.images.is_empty() {
        true => store.images().map_err(failed)?,
        false => {
            let named = flags.images.iter().map(|text| image(&store, text));
            let named = named.map(|found| Ok(found?.image));
            named.collect::<Result<Vec<Image>, kvmlet_command::Failed>>()?
        }
    };
    let mut search = Search::new(Path::new(LISTS), Path::new(CACHE));
    let (mut rows, mut names) = (Vec::new(), String::new());
    for image in &images {
        let name = called(image);
        match search.look(&store, image)? {
            Found::NoPackages => log::info!("`{name}` has packages of neither dpkg, apk nor rpm"),
            Found::Unread => standard_error::say(format_args!(
                "kvmlet: what is new for `{name}` is not known: its packages are rpm's, whose database is not read"
            )),
            Found::Unknown(release) => standard_error::say(format_args!(
                "kvmlet: what is new for `{name}` is not known: it is of `{release}`, which the package index of this host does not have"
            )),
            Found::Outdated(packages) => {
                if !packages.is_empty() {
                    names.push_str(&format!("{name}\n"));
                }
                rows.extend(packages.into_iter().map(|(package, newest)| -> Value {
                    json!({
                        "Image": name,
                        "ID": image.id.short(),
                        "Package": package.name,
                        "Architecture": package.architecture,
                        "Installed": package.version,
                        "Available": newest,
                    })
                }));
            }
        }
    }
    match flags.quiet {
        true => print(names)?,
        false => print(format.render(&rows, str::to_uppercase)?)?,
    }
    Ok(0)
}

/// Its first name, or its id.
fn called(image: &Image) -> String {
    let tagged = image.names.iter().find(|name| name.tag().is_some());
    let any = tagged.or(image.names.first());
    any.map_or_else(|| image.id.short(), ToString::to_string)
}
