//! Descriptors that clients send with their requests (SCM_RIGHTS, unix(7)).

use std::os::fd::OwnedFd;

/// What has come along with a request.
#[derive(Debug, Default)]
pub struct Along {
    /// In the order in which they came.
    pub descriptors: Vec<OwnedFd>,
    /// There were more than there may be, which are closed.
    pub too_many: bool,
}

impl Along {
    /// Keeps as many as there may be.
    pub(super) fn add(&mut self, came: Vec<OwnedFd>, most: usize) {
        let room = most.saturating_sub(self.descriptors.len());
        self.too_many |= came.len() > room;
        self.descriptors.extend(came.into_iter().take(room));
    }
}
