//! A VM that is saved is written to its two files, beside what hears the client.

use super::fault::Fault;
use super::machine::Machine;
use super::snapshot::{CreateSnapshot, told};
use super::whole::Whole;
use kvmlet_control::Saving;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::event::Event;
use kvmlet_sys::temporary::{Temporary, check_place};
use kvmlet_vmm::snapshot::{Sink, beginning};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A VM that is being written to its files, by a thread.
#[derive(Debug)]
pub struct Writing {
    /// Tells it what the VM says when it has told all.
    verdict: Sender<Result<(), Fault>>,
    /// Signalled when it has ended.
    pub ended: Arc<Event>,
    result: Receiver<Result<Option<Whole>, Fault>>,
}

impl Writing {
    /// Begins to write: what has changed since a `base`, or all.
    pub fn begin(
        asked: CreateSnapshot,
        base: Option<Whole>,
        saving: Saving,
        machine: &Machine,
    ) -> Result<Self, Fault> {
        let no_host = |error: io::Error| Fault(format!("Create snapshot error: {error}"));
        let text = told(machine).map_err(no_host)?;
        let ended = Arc::new(Event::new().map_err(no_host)?);
        let (verdict, said) = channel();
        let (tell, result) = channel();
        let signal = Arc::clone(&ended);
        let write = move || {
            let written = write(&asked, base, saving, &text, &said);
            // Nobody waits for it where the VM has ended.
            let _ = tell.send(written);
            signal.signal();
        };
        std::thread::Builder::new().spawn(write).map_err(no_host)?;
        Ok(Self {
            verdict,
            ended,
            result,
        })
    }

    /// The VM has told all, or says why not.
    pub fn told(&self, verdict: Result<(), Fault>) {
        let _ = self.verdict.send(verdict);
    }

    /// What has become of it, if it has ended: what later differences are to, if that is something else now.
    pub fn result(&self) -> Option<Result<Option<Whole>, Fault>> {
        self.result.try_recv().ok()
    }
}

fn write(
    asked: &CreateSnapshot,
    base: Option<Whole>,
    saving: Saving,
    manifest: &[u8],
    said: &Receiver<Result<(), Fault>>,
) -> Result<Option<Whole>, Fault> {
    let unwritten = |path: &Path, error: &io::Error| {
        Fault(format!(
            "Create snapshot error: `{}`: {error}",
            path.display()
        ))
    };
    let Saving {
        pieces, most_bytes, ..
    } = saving;
    let memory = asked.mem_file_path.as_path();
    let in_memory = |error: io::Error| unwritten(memory, &error);
    let (directory, name) = place(memory).map_err(in_memory)?;
    check_place(&directory, name).map_err(in_memory)?;
    // It has no name until it is whole, and nobody else can open it.
    let mut new = Temporary::private(&directory).map_err(in_memory)?;
    let below = base.as_ref().map(Whole::open).transpose()?;
    // Firecracker writes what has changed into the file that is there, if it is that.
    let is_at_base = base.as_ref().is_some_and(|base| base.is_at(memory));
    let sink = match &below {
        Some(below) => Sink::over(new.file(), most_bytes, below),
        None => Sink::new(new.file(), most_bytes),
    };
    let filled = sink.fill(File::from(pieces));
    // The VM knows why it has told no more, if that is what is wrong.
    let verdict = said
        .recv()
        .unwrap_or_else(|_| Err(Fault("The VM has ended.".into())));
    verdict.and(filled.map_err(in_memory))?;
    if let Some(below) = below.filter(|_| is_at_base) {
        let difference = new.file().try_clone().map_err(in_memory)?;
        let over = below.lay_over(difference);
        let over = over.map_err(|fault| in_memory(io::Error::other(fault)))?;
        new = Temporary::private(&directory).map_err(in_memory)?;
        over.write_whole_to(new.file()).map_err(in_memory)?;
    }
    let written = |error: io::Error| unwritten(&asked.snapshot_path, &error);
    let (beside, state) = place(&asked.snapshot_path).map_err(written)?;
    let mut description = Temporary::private(&beside).map_err(written)?;
    let beginning = beginning(new.file(), manifest).map_err(in_memory)?;
    description.file().write_all(&beginning).map_err(written)?;
    description.file().sync_all().map_err(written)?;
    new.file().sync_all().map_err(in_memory)?;
    let whole = match &base {
        Some(_) if !is_at_base => None,
        Some(base) => Some(base.replaced(new.file()).map_err(in_memory)?),
        None => Whole::of(new.file()),
    };
    new.publish(name).map_err(in_memory)?;
    description.publish(state).map_err(written)?;
    rustix::fs::fsync(&directory).map_err(|error| in_memory(error.into()))?;
    rustix::fs::fsync(&beside).map_err(|error| written(error.into()))?;
    Ok(whole)
}

/// Where a file is to be, which is no directory.
fn place(path: &Path) -> io::Result<(Directory, &Path)> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Directory::of_file(path)
}
