//! `kvmlet resume`.

use super::boot::StartedBy;
use super::instances::{book, each, look, look_again};
use super::keep::{NotStarted, program};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_host::net::is_free;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_manager::starting::{Keeper, Starting};
use kvmlet_manager::{Asked, Error, Instance, SUSPENDED, State, Whereabouts};
use kvmlet_vmm::snapshot::noted;

/// Have instances go on that were suspended, where they were.
///
/// The time that has passed is made known to their guests, and connections of theirs are gone. One that cannot go on stays suspended.
#[derive(Args)]
pub(super) struct Resume {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Resume {
    pub fn run(self) -> Outcome {
        StartedBy::Again.speak();
        let book = book()?;
        each(&self.instances, |reference| {
            let (instance, before) = look(&book, reference)?;
            // Somebody may be suspending it, or resuming.
            let turn = instance.turn()?;
            let view = look_again(&book, &instance)?;
            match (view.state, before.state) {
                // Its supervisor may hold what it had.
                (State::Suspended, _) if view.is_alive() && instance.rouse()? => {}
                (State::Suspended, _) => {
                    let mut keeper = program(StartedBy::Again)?;
                    keeper.args(nets(&instance, &view.asked).into_iter().flatten());
                    let begun = Starting::begin(Keeper::Program(keeper), instance.id(), turn);
                    begun.and_then(Starting::wait).map_err(NotStarted::from)?;
                }
                // Somebody else was faster.
                (State::Running, State::Suspended) => {}
                (state, _) => return Err(not_suspended(view.called(), state)),
            }
            Ok(reference.into())
        })
    }
}

/// Says where its interfaces were, if they can be there again.
fn nets(instance: &Instance, asked: &Asked) -> Option<[String; 2]> {
    let runtime = RuntimeDirectory::of_user().ok()?;
    let note = noted(&instance.directory().path().join(SUSPENDED)).ok()?;
    Whereabouts::of(note.as_deref()).as_flag(asked, &|subnet| is_free(subnet, &runtime))
}

fn not_suspended(called: &str, state: State) -> Failed {
    let called = called.to_owned();
    match state {
        State::Running => Error::Already { called, state }.into(),
        State::Paused => Failed::new(format!("instance `{called}` is paused"))
            .help(format!("`kvmlet unpause {called}` has it go on")),
        _ => Failed::new(format!(
            "instance `{called}` is not suspended: it {}",
            state.instead()
        ))
        .help(format!("`kvmlet start {called}` starts it")),
    }
}
