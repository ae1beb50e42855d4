//! Descriptors that whoever starts a VM has opened for it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A descriptor for one VM, which takes it: of clones, the first one that starts.
#[derive(Clone, Debug)]
pub struct Given(Arc<Mutex<Option<OwnedFd>>>);

impl Given {
    /// The descriptor, once.
    pub fn take(&self) -> Option<OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<OwnedFd> for Given {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Arc::new(Mutex::new(Some(descriptor))))
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Given {}
