//! Whose VMs a server is about: all of a user, or one.

use super::history::History;
use super::route::Route;
use super::table::TABLES;
use super::table_alone::ALONE;
use kvmlet_manager::Book;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose VMs it is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// All that are in a book.
    Book(Arc<Book>),
    /// One, by its control socket.
    Vm(Arc<Alone>),
}

/// One VM, which may be in no book.
#[derive(Debug)]
pub struct Alone {
    /// Where it is asked.
    pub socket: Box<Path>,
    history: Mutex<History>,
}

impl Alone {
    /// One of which nothing is known yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
            history: Mutex::default(),
        }
    }

    /// What has happened to it since this server began.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    /// All that can be asked for.
    pub const fn tables(&self) -> &'static [&'static [Route]] {
        match self {
            Self::Book(_) => &TABLES,
            Self::Vm(_) => &ALONE,
        }
    }
}
