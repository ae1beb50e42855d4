//! `kvmlet start`.

use super::boot::StartedBy;
use super::instances::{book, each, is_alive, look_again};
use super::keep::detach;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::State;

/// Start instances again that have ended. One that runs is left as it is.
#[derive(Args)]
pub(super) struct Start {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Start {
    pub fn run(self) -> Outcome {
        StartedBy::Again.speak();
        let book = book()?;
        each(&self.instances, |reference| {
            let instance = book.find(reference)?;
            // Somebody may be starting it.
            let turn = instance.turn()?;
            let view = look_again(&book, &instance)?;
            match view.state {
                State::Paused => {
                    let called = view.called();
                    let failed = Failed::new(format!("instance `{called}` is paused"));
                    return Err(failed.help(format!("`kvmlet unpause {called}` has it go on")));
                }
                State::Suspended => {
                    let called = view.called();
                    let failed = Failed::new(format!("instance `{called}` is suspended"));
                    return Err(failed.help(format!(
                        "`kvmlet resume {called}` has it go on, `kvmlet restart {called}` boots it anew"
                    )));
                }
                _ if is_alive(&view) => {}
                _ => detach(instance.id(), turn)?,
            }
            Ok(reference.into())
        })
    }
}
