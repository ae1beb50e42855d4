//! What verbs about instances have in common.

pub(super) mod agent;
pub(super) mod kernel;
pub(super) mod row;

use crate::Failed;
use crate::exit_code::ExitCode;
use kvmlet_manager::{Book, Instance, InstanceId, Name, View};
use kvmlet_sys::standard_error;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The book of this user.
pub(super) fn book() -> Result<Book, Failed> {
    Ok(Book::of_user()?)
}

/// Does something with each of these, and prints what comes of it. One that fails does not keep the others from it.
pub(super) fn each(
    references: &[String],
    mut act: impl FnMut(&str) -> Result<String, Failed>,
) -> crate::Outcome {
    let mut code = 0;
    for reference in references {
        match act(reference) {
            Ok(said) => kvmlet_command::print(format!("{said}\n"))?,
            Err(failed) => {
                failed.print();
                code = ExitCode::NotDone.number();
            }
        }
    }
    Ok(code)
}

/// An instance, and all that is known of it.
pub(super) fn look(book: &Book, reference: &str) -> Result<(Instance, View), Failed> {
    let instance = book.find(reference)?;
    let view = look_again(book, &instance)?;
    Ok((instance, view))
}

/// All that is known of an instance now.
pub(super) fn look_again(book: &Book, instance: &Instance) -> Result<View, Failed> {
    Ok(instance.view(book.name_of(instance.id())?)?)
}

/// Does its supervisor live?
pub(super) fn is_alive(view: &View) -> bool {
    view.end.is_none()
}

/// Sends the supervisor of an instance a signal; false if there is none.
pub(super) fn signal(instance: &Instance, view: &View, signal: Signal) -> Result<bool, Failed> {
    let Some(keeper) = view.record.keeper.as_ref().filter(|_| is_alive(view)) else {
        return Ok(false);
    };
    let failed = |error: rustix::io::Errno| {
        let what = format!("instance `{}` cannot be told", view.called());
        Failed::in_vain(what, std::io::Error::from(error))
    };
    let pid = i32::try_from(keeper.pid).ok().and_then(Pid::from_raw);
    let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(false);
    };
    // Whoever has the number now is the supervisor only if that lives still.
    let again = instance.view(None)?;
    if !is_alive(&again) || again.record.run != view.record.run {
        return Ok(false);
    }
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Tells what has happened to an instance. One that is not told is no reason to fail.
pub(super) fn tell<const N: usize>(
    book: &Book,
    event: &str,
    view: &View,
    attributes: [(&str, String); N],
) {
    tell_of(book, event, &view.id, view.name.as_ref(), attributes);
}

/// The same of one that nobody has looked at.
pub(super) fn tell_of<const N: usize>(
    book: &Book,
    event: &str,
    id: &InstanceId,
    name: Option<&Name>,
    attributes: [(&str, String); N],
) {
    if let Err(error) = book.tell(event, id, name, attributes) {
        standard_error::say(format_args!(
            "kvmlet: the event `{event}` is not told: {error}"
        ));
    }
}
