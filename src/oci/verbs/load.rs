//! `kvmlet load` and `import`.

use super::{reference, store};
use crate::load::{self, Source};
use kvmlet_command::oci::{Import, Load};
use kvmlet_command::{Failed, Outcome, print};
use std::io::{self, IsTerminal};
use std::path::Path;

pub(super) fn load(flags: &Load) -> Outcome {
    let source = source(flags.input.as_deref())?;
    for loaded in load::load(&store()?, &source)? {
        let names = loaded.names.iter();
        let names = names.filter(|name| name.tag().is_some());
        let mut lines: String = names
            .map(|name| format!("Loaded image: {name}\n"))
            .collect();
        if lines.is_empty() {
            lines = format!("Loaded image ID: {}\n", loaded.id);
        }
        print(lines)?;
    }
    Ok(0)
}

pub(super) fn import(flags: &Import) -> Outcome {
    let names = flags.name.as_deref().map(reference).transpose()?;
    if names.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Failed::new(
            "a digest is no name that an image can be given",
        ));
    }
    let source = source(Some(&flags.file))?;
    let names: Vec<_> = names.into_iter().collect();
    let loaded = load::import(&store()?, &source, &names)?;
    print(format!("{}\n", loaded.image.id))?;
    Ok(0)
}

/// What is named; `-` and nothing are standard input.
fn source(path: Option<&Path>) -> Result<Source<'_>, Failed> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => Ok(Source::Path(path)),
        None if io::stdin().is_terminal() => {
            Err(Failed::new("nothing is piped in").help("name a file, or pipe an archive in"))
        }
        None => Ok(Source::Input),
    }
}
