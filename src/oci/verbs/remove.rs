//! `kvmlet rmi`.

use super::{failed, in_use, store};
use kvmlet_command::oci::Remove;
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_image::store::{Error, Removed};

pub(super) fn run(flags: &Remove) -> Outcome {
    let store = store()?;
    let in_use = in_use()?;
    let mut code = 0;
    for text in &flags.images {
        match store.remove(text, flags.force, &in_use) {
            Ok(removed) => tell(&removed)?,
            Err(Error::NoImage(_)) if flags.force => {}
            // The others are removed all the same, as by docker.
            Err(error) => {
                told(error).print();
                code = super::NOT_DONE;
            }
        }
    }
    Ok(code)
}

/// Why it is not done; by whom an image is used, if that is why.
fn told(error: Error) -> Failed {
    let users = match &error {
        Error::InUse(id) => super::users(id),
        _ => Vec::new(),
    };
    match users.is_empty() {
        true => failed(error),
        false => {
            let names = users.join(" ");
            failed(error).help(format!(
                "remove what has it first: `kvmlet rm -f {names}`; with --force only the name goes"
            ))
        }
    }
}

/// What is gone, in docker's words.
pub(super) fn tell(removed: &Removed) -> Result<(), kvmlet_command::Failed> {
    let names = removed
        .names
        .iter()
        .map(|name| format!("Untagged: {name}\n"));
    let images = removed.images.iter().map(|id| format!("Deleted: {id}\n"));
    let layers = removed.layers.iter().map(|id| format!("Deleted: {id}\n"));
    print(names.chain(images).chain(layers).collect::<String>())
}
