//! The file that a VM goes on from, as whoever attends it sees it. What the VM has not changed of its memory it reads from there,
//! so it ends in some way or other when somebody cuts the file short, or writes to it: then that is why.

use crate::Error;
use kvmlet_spec::{Dialect, Outcome, Reason};
use kvmlet_vmm::snapshot::Saved;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub(crate) struct Origin {
    path: PathBuf,
    file: File,
    was: Look,
}

/// How it looks.
#[derive(Clone, Copy, PartialEq)]
struct Look {
    bytes: u64,
    written: (i64, i64),
}

impl Look {
    fn at(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            bytes: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
        })
    }
}

impl Origin {
    /// As it is before its VM runs.
    pub fn of(saved: &Saved) -> io::Result<Self> {
        let file = saved.memory.try_clone()?;
        Ok(Self {
            path: saved.mapped().into(),
            was: Look::at(&file)?,
            file,
        })
    }

    /// The outcome of its VM, with that as the reason if it ended badly and the file is another than it was.
    pub fn explain(&self, outcome: Outcome, dialect: Dialect) -> Outcome {
        let is_bad = match outcome.reason {
            Reason::TripleFault | Reason::Panic | Reason::Failed => true,
            // What the kernel sends to who reads what is not there.
            Reason::Killed => outcome.signal == Some(libc::SIGBUS),
            _ => false,
        };
        let is = Look::at(&self.file).unwrap_or(self.was);
        if !is_bad || is == self.was {
            return outcome;
        }
        let (path, is_cut) = (self.path.clone(), is.bytes < self.was.bytes);
        let error = match is_cut {
            true => Error::SnapshotCut { path },
            false => Error::SnapshotWritten { path },
        };
        outcome.failure(error.told_in(dialect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_end_is_the_files_fault_only_where_that_has_changed() {
        let mut named = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut named, &[0; 8192]).unwrap();
        let file = named.reopen().unwrap();
        let was = Look::at(&file).unwrap();
        let path = named.path().to_path_buf();
        let origin = Origin { path, file, was };
        let told = |reason, signal| {
            let outcome = Outcome::new(reason).signal(signal);
            let told = origin.explain(outcome, Dialect::File);
            assert_eq!(told.reason, reason);
            told.failure.map(|failure| failure.message)
        };
        assert_eq!(told(Reason::Killed, libc::SIGBUS), None);
        named.as_file().set_len(4096).unwrap();
        for (reason, signal) in [
            (Reason::Killed, libc::SIGBUS),
            (Reason::TripleFault, 0),
            (Reason::Failed, 0),
        ] {
            let message = told(reason, signal).unwrap();
            assert!(message.contains("cut short"), "{message}");
        }
        assert_eq!(told(Reason::Killed, libc::SIGKILL), None);
        assert_eq!(told(Reason::Shutdown, 0), None);
        named.as_file().set_len(8192).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        named.as_file().set_modified(later).unwrap();
        let message = told(Reason::TripleFault, 0).unwrap();
        assert!(message.contains("written to"), "{message}");
    }
}
