//! What each thread of a VM's process may ask of the kernel: a list of system calls for each kind of thread, as
//! a seccomp filter (seccomp(2)). A thread that makes any other call ends the process, with a message that
//! names the two.
//!
//! A list holds for the thread that [seals](Filters::seal) itself, and for good. What the calls work on is
//! for descriptors to decide: no list has one that opens, connects, starts or maps executable memory.

mod lists;
#[cfg(test)]
mod tests;

pub use lists::{own_rules, rules, shared_rules};

use crate::thread::ThreadKind;
use kvmlet_sys::seccomp::{Program, check_support, install_alarm, remember_thread};
use std::io;

/// The filters for some kinds of threads, ready to be installed.
#[derive(Debug)]
pub struct Filters(Vec<(ThreadKind, Program)>);

impl Filters {
    /// Makes a filter for each kind, and installs the handler by which a thread that leaves its list ends the process.
    /// It holds for the process that calls this, whatever becomes of its number.
    ///
    /// # Errors
    /// When the kernel knows no such filters, or gives no handler.
    pub fn new(kinds: &[ThreadKind]) -> io::Result<Self> {
        check_support()?;
        install_alarm()?;
        let mut filters = Self(Vec::new());
        for kind in kinds {
            if filters.of(*kind).is_none() {
                filters.0.push((*kind, Program::new(rules(*kind))?));
            }
        }
        Ok(filters)
    }

    /// Holds the calling thread to the list of its kind.
    ///
    /// # Errors
    /// When there is no filter for that kind, or the kernel refuses it.
    pub fn seal(&self, kind: ThreadKind) -> io::Result<()> {
        let program = self.of(kind).ok_or(io::ErrorKind::NotFound)?;
        remember_thread();
        program.install()
    }

    fn of(&self, kind: ThreadKind) -> Option<&Program> {
        let mut filters = self.0.iter();
        filters
            .find(|(have, _)| *have == kind)
            .map(|(_, program)| program)
    }
}
