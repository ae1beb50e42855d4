//! What a start needs and nothing else does.

use kvmlet_sys::{code, heap, stack};
use std::time::{Duration, Instant};

/// When a start is over for sure.
const SETTLED: Duration = Duration::from_secs(1);

/// A process with a VM that has started: most of the code that it has run by now runs once only, and is left to the page
/// cache a while later.
#[derive(Debug)]
pub(crate) struct Settling {
    due: Option<Instant>,
}

impl Settling {
    pub fn begin() -> Self {
        Self {
            due: Instant::now().checked_add(SETTLED),
        }
    }

    /// When it is to be [looked](Self::look) at.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True once, when it has settled now.
    pub fn look(&mut self) -> bool {
        let has_settled = self.due.take_if(|due| *due <= Instant::now()).is_some();
        if has_settled {
            code::leave_to_page_cache();
            // Mostly what the command line and its definition took.
            heap::give_back();
            stack::give_back();
        }
        has_settled
    }
}
