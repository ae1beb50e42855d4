//! Ending instances, with a word to who waits.

use super::Failed;
use super::logs::follow;
use kvmlet_manager::logs::{Selection, Stream, Streams};
use kvmlet_manager::{Book, Ending, Instance, Moment};
use kvmlet_sys::standard_error;

/// Ends an instance's VM, if it has one, and waits for that, which can be told. It is not started again by itself.
pub(super) fn stop(
    book: &Book,
    instance: &Instance,
    ending: Ending,
    tells: bool,
) -> Result<(), Failed> {
    let since = Moment::now();
    book.end(instance, ending, || match tells {
        true => tell_steps(instance, since),
        false => Ok(()),
    })
}

/// Tells, on standard error, what kvmlet does to end an instance, until that has ended.
fn tell_steps(instance: &Instance, since: Moment) -> Result<(), Failed> {
    let selection = Selection {
        since: Some(since),
        streams: Streams::All,
        ..Selection::default()
    };
    follow(instance, &selection, |entry| {
        if entry.stream == Stream::Kvmlet {
            standard_error::tell(&entry.text);
        }
        Ok(true)
    })
}
