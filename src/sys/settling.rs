//! What a start needs and nothing else does.

use crate::{code, heap, stack};
use std::time::{Duration, Instant};

/// When a start is over for sure.
const SETTLED: Duration = Duration::from_secs(1);

/// A process that has started a VM: most of the code that it has run by now runs once only, and is left to the page cache a
/// while later. What it has allocated for that, and its stack, go back to the kernel.
#[derive(Debug)]
pub struct Settling {
    due: Option<Instant>,
}

impl Settling {
    /// It starts now.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            due: Instant::now().checked_add(SETTLED),
        }
    }

    /// When it is to be [looked](Self::look) at.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives back what there is when it is due; true then, once.
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
