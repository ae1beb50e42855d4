//! What each thread of a VM's process may ask of the kernel: a list of system calls for each kind of thread, as
//! a seccomp filter (seccomp(2)). A thread that makes any other call ends the process, with a message that
//! names the two.
//!
//! A list holds for the thread that [seals](Filters::seal) itself, and for good. What the calls work on is
//! for descriptors to decide: no list has one that opens, connects, starts or maps executable memory.

mod alarm;
mod elsewhere;
mod lists;
mod program;
mod strangers;
#[cfg(test)]
mod tests;

pub use alarm::{EXIT_CODE, end_at_panic};
pub use elsewhere::{Elsewhere, elsewhere};
pub use lists::{Check, Rule, own_rules, rules, shared_rules};

pub use strangers::rules as strangers_rules;

use super::thread::ThreadKind;
use program::Program;
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
        alarm::install()?;
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
        alarm::remember_thread();
        program.install()
    }

    fn of(&self, kind: ThreadKind) -> Option<&Program> {
        let mut filters = self.0.iter();
        filters
            .find(|(have, _)| *have == kind)
            .map(|(_, program)| program)
    }
}

/// Holds the calling thread, which serves strangers, to what that takes; anything else is refused (EPERM).
///
/// # Errors
/// When the kernel refuses the filter.
pub fn serve_strangers() -> io::Result<()> {
    Program::refusing(strangers::rules())?.install()
}

/// Does the kernel know filters that trap?
///
/// # Errors
/// What it says if not.
pub fn check_support() -> io::Result<()> {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: reads a number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
