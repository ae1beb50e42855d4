//! What verbs about instances have in common.

pub(super) mod agent;
pub(super) mod kernel;
pub(super) mod row;

use crate::Failed;
use crate::exit_code::ExitCode;
use kvmlet_manager::{Book, Instance, InstanceId, Name, State, View};
use kvmlet_sys::standard_error;
use rustix::process::Signal;

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
        match act(reference).and_then(|said| kvmlet_command::print(format!("{said}\n"))) {
            Ok(()) => {}
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
    Ok(book.view(instance)?)
}

/// Does its supervisor live?
pub(super) fn is_alive(view: &View) -> bool {
    view.is_alive()
}

/// Why one has no VM that could do anything, behind "it", and what helps; none of one that has.
pub(super) fn lacks_vm(view: &View) -> Option<(&'static str, String)> {
    let called = view.called();
    match view.state {
        State::Suspended => {
            let help = format!("`kvmlet resume {called}` has it go on");
            Some(("is suspended", help))
        }
        _ if is_alive(view) => None,
        _ => Some(("does not run", format!("`kvmlet start {called}` starts it"))),
    }
}

/// Sends the supervisor of an instance a signal; false if there is none.
pub(super) fn signal(instance: &Instance, view: &View, signal: Signal) -> Result<bool, Failed> {
    Ok(instance.tell_supervisor(view, signal)?)
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
