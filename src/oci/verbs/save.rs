//! `kvmlet save`.

use super::{image, reference, store};
use crate::save;
use kvmlet_command::oci::Save;
use kvmlet_command::{Failed, Outcome};
use kvmlet_image::reference::Reference;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::output::StandardOutput;
use kvmlet_sys::temporary::{Temporary, check_place};
use rustix::fs::Mode;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

pub(super) fn run(flags: &Save) -> Outcome {
    let store = store()?;
    let mut wanted = Vec::new();
    for text in &flags.images {
        let stored = image(&store, text)?;
        // By an id it has no name in the archive.
        let by_name = reference(text).ok();
        let named = by_name.filter(|name: &Reference| stored.image.names.contains(name));
        wanted.push((stored, named.filter(|name| name.tag().is_some())));
    }
    match &flags.output {
        Some(path) if path != Path::new("-") => {
            let failed =
                |error| Failed::in_vain(format!("cannot write `{}`", path.display()), error);
            let (directory, name) = Directory::of_file(path).map_err(failed)?;
            check_place(&directory, name).map_err(failed)?;
            let mode = Mode::from_raw_mode(0o666);
            let mut new = Temporary::new(&directory, mode).map_err(failed)?;
            let mut out = BufWriter::with_capacity(256 << 10, new.file());
            save::save(&store, &wanted, &mut out)?;
            out.flush().map_err(failed)?;
            drop(out);
            new.publish(name).map_err(failed)?;
        }
        _ => {
            if io::stdout().is_terminal() {
                let said = "an archive is not written to a terminal";
                return Err(Failed::new(said).help("say --output FILE, or where it goes: `> FILE`"));
            }
            // Rust's own takes what is closed for somewhere to write to.
            let mut out = BufWriter::with_capacity(256 << 10, StandardOutput);
            save::save(&store, &wanted, &mut out)?;
            out.flush()
                .map_err(|error| Failed::in_vain("cannot write to standard output", error))?;
        }
    }
    Ok(0)
}
