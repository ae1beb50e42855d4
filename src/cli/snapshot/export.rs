//! `kvmlet snapshot export`.

use super::archive::pack;
use super::elsewhere::Described;
use super::found::{find, has_place};
use super::opened::open;
use super::save::{Target, unwritten};
use crate::instances::book;
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Kept, Snapshots};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::output::StandardOutput;
use kvmlet_sys::temporary::unnamed;
use kvmlet_vmm::snapshot::{Fault, Saved};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// How a file begins that zstd has written.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Write a snapshot or a template to an archive, which `kvmlet snapshot import` takes on another host.
///
/// It is compressed, and has a digest of all in it. All of the guest's memory is in it, keys and passwords among it, and the service's
/// variables; names of files of this host are not. Memory is checked before it is written.
#[derive(Args)]
pub(super) struct Export {
    /// Its id, the beginning of that, its file; or the name of an instance, if there is one snapshot of it.
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// The archive, such as web.tar.zst; `-` is standard output.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
}

impl Export {
    pub fn run(self) -> Outcome {
        let (saved, kept) = self.find()?;
        let unusable = |error| {
            Failed::new(error)
                .help("export a file that `kvmlet snapshot` has written, as it was written")
        };
        saved.verify().map_err(unusable)?;
        let instance = kept.as_ref().map(Described::of).transpose()?;
        let made = kept.map(|kept| kept.made);
        // Who takes the archive has no base: it has all of a difference.
        let whole = saved.difference.as_ref().map(|_| self.put_together(&saved));
        let whole = whole.transpose()?;
        let file = whole.as_ref().unwrap_or(&saved.memory);
        if self.archive.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(Failed::new("an archive is not written to a terminal")
                    .help("name a file, or say where it goes: `- > FILE`"));
            }
            // Rust's own takes what is closed for somewhere to write to.
            let mut out = BufWriter::with_capacity(256 << 10, StandardOutput);
            let packed = pack(file, made, instance, &mut out).and_then(|()| out.flush());
            packed.map_err(|error| Failed::in_vain("the archive cannot be written", error))?;
            return Ok(0);
        }
        let target = Target::of(&self.archive)?;
        refuse_foreign(&self.archive)?;
        let mut new = target.begin()?;
        let mut out = BufWriter::with_capacity(256 << 10, new.file());
        let packed = pack(file, made, instance, &mut out).and_then(|()| out.flush());
        packed.map_err(|error| unwritten(&self.archive, error))?;
        drop(out);
        target.publish(new)?;
        Ok(0)
    }

    /// A difference and its base as one file, which has no name and goes with this process.
    fn put_together(&self, saved: &Saved) -> Result<File, Failed> {
        let beside = match self.archive.as_os_str() == "-" {
            true => &saved.path,
            false => &self.archive,
        };
        let put = || {
            let (directory, _) = Directory::of_file(beside)?;
            let new = unnamed(&directory)?;
            saved.write_whole_to(&new)?;
            Ok(new)
        };
        put().map_err(|error| unwritten(beside, error))
    }

    /// The snapshot, and what is noted of it.
    fn find(&self) -> Result<(Saved, Option<Kept>), Failed> {
        let snapshots = Snapshots::of(&book()?)?;
        let path = Path::new(&self.snapshot);
        let kept = match self.snapshot.contains('/') || path.is_file() {
            true => find(&snapshots, &self.snapshot).ok(),
            false => Some(by_name(&snapshots, &self.snapshot)?),
        };
        let path = kept.as_ref().map_or(path, |kept| &kept.path);
        let opened = open(path, None);
        let saved = opened.map_err(|error| match error.fault {
            Fault::Difference => Failed::new(error).help(
                "its base is not noted here: have it go on (`kvmlet restore --base`), and export a snapshot of that, taken as a whole",
            ),
            _ => Failed::new(error),
        })?;
        match &kept {
            Some(kept) if !has_place(kept) => Err(Failed::new(format!(
                "something else has the place of the snapshot: `{}`",
                path.display()
            ))),
            _ => Ok((saved, kept)),
        }
    }
}

/// The snapshot of an id, or the only one of an instance.
fn by_name(snapshots: &Snapshots, reference: &str) -> Result<Kept, Failed> {
    let error = match snapshots.resolve(reference) {
        Ok(kept) => return Ok(kept),
        Err(error) => error,
    };
    let mut all = snapshots.list()?;
    all.retain(|kept| {
        kept.name
            .as_ref()
            .is_some_and(|name| name.as_str() == reference)
    });
    match all.len() {
        0 => Err(error.into()),
        1 => Ok(all.swap_remove(0)),
        count => Err(
            Failed::new(format!("instance `{reference}` has {count} snapshots"))
                .help("say which one: `kvmlet snapshot ls` has their ids"),
        ),
    }
}

/// An archive takes the place of another one, and of nothing else.
fn refuse_foreign(path: &Path) -> Result<(), Failed> {
    let mut begin = Vec::new();
    let read = match path.metadata() {
        // What is no file has words of its own.
        Ok(found) if found.is_file() => {
            File::open(path).and_then(|file| file.take(4).read_to_end(&mut begin))
        }
        _ => return Ok(()),
    };
    let is_ours = begin.is_empty() || begin == ZSTD;
    let what = format!(
        "`{}` is there, and is no archive that could be replaced",
        path.display()
    );
    match read {
        Ok(_) if is_ours => Ok(()),
        Ok(_) => Err(Failed::new(what)),
        Err(error) => Err(Failed::in_vain(what, error)),
    }
    .map_err(|failed| failed.help("name another file, or remove that one first"))
}
