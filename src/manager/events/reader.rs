//! Reading events, and those to come.

use super::{Event, FILES, LINE_BYTES};
use crate::rotated::Lines;
use crate::watch::{Watch, Woken};
use crate::{Book, Moment};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Which events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSelection {
    /// Those that are still to come.
    New,
    /// All that are kept.
    All,
    /// From a point in time on.
    Since(Moment),
    /// Behind that of a number.
    After(u64),
}

/// Events that are read, in their order.
#[derive(Debug)]
pub struct EventReader {
    watch: Watch,
    lines: Lines,
    selection: EventSelection,
}

/// Readable when something was written, maybe an event.
impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl EventReader {
    /// Opens those of a book.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(book: &Book, selection: EventSelection) -> io::Result<Self> {
        let directory = book.directory();
        let tail = (selection == EventSelection::New).then_some(0);
        Ok(Self {
            // First, so that nothing is missed in between.
            watch: Watch::on(directory)?,
            lines: Lines::open(directory, FILES, LINE_BYTES, tail)?,
            selection,
        })
    }

    /// The next event; none where there is no more, yet.
    ///
    /// # Errors
    /// What the kernel says.
    #[allow(clippy::should_implement_trait)] // it goes on after the last one
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        while let Some(line) = self.lines.next()? {
            let Ok(event) = serde_json::from_slice::<Event>(&line) else {
                continue;
            };
            let wanted = match self.selection {
                EventSelection::New | EventSelection::All => true,
                EventSelection::Since(since) => event.time >= since,
                EventSelection::After(number) => event.sequence > number,
            };
            if wanted {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Has it be [waited for](AsFd) anew: what was written by now is to be read behind this.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_notice(&self) -> io::Result<()> {
        self.watch.take()
    }

    /// Waits for the next event; none when `end` can be read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&mut self, end: BorrowedFd<'_>) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.next()? {
                return Ok(Some(event));
            }
            if self.watch.wait(end)? == Woken::Other {
                return Ok(None);
            }
        }
    }
}
