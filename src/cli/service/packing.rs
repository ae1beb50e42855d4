//! Directories of this host become images.

use crate::Failed;
use kvmlet_image::pack::{self, Owners};
use std::fs::File;
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Makes an image of what is in a directory. Same files, same bytes.
pub(super) fn pack(image: &Path, directory: &Path, owners: Owners) -> Result<(), Failed> {
    let name = directory.display().to_string();
    let in_vain = || format!("no image can be made of `{name}`");
    let file = File::create(image).map_err(|error| Failed::in_vain(in_vain(), error))?;
    let mut progress = Progress::new(&name);
    let packed = pack::image(directory, owners, &file, |written, all| {
        progress.note(written, all);
    });
    progress.end();
    packed.map_err(|error| Failed::in_vain(in_vain(), error))
}

/// How often somebody at a terminal is told, and not before it has taken as long.
const TICK: Duration = Duration::from_millis(200);

/// One line at the terminal of who waits, which goes when it is done.
struct Progress<'a> {
    name: &'a str,
    is_shown: bool,
    told: Instant,
    is_there: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            is_shown: stderr().is_terminal(),
            told: Instant::now(),
            is_there: false,
        }
    }

    fn note(&mut self, written: u64, all: u64) {
        if self.is_shown && self.told.elapsed() >= TICK {
            (self.told, self.is_there) = (Instant::now(), true);
            let (name, written, all) = (self.name.escape_debug(), written >> 20, all >> 20);
            // It is of no use to anybody that it cannot be told.
            let _ = write!(stderr(), "\r\x1b[Kpacking {name}: {written} of {all} MiB");
        }
    }

    fn end(self) {
        if self.is_there {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
