//! The agent in the guest of an instance.

use super::{book, lacks_vm, look};
use crate::Failed;
use kvmlet_control::agent::Agent;
use kvmlet_manager::supervision::connect;
use kvmlet_manager::{State, View};
use std::error::Error;
use std::time::Duration;

/// How long a guest may take to be connected to, and to do what takes no time.
pub(in super::super) const PATIENCE: Duration = Duration::from_secs(30);

/// An instance, and a connection to the agent of its guest. An error starts with `vain`: what is then not done, up to the name.
pub(in super::super) fn reach(reference: &str, vain: &str) -> Result<(View, Agent), Failed> {
    let (instance, view) = look(&book()?, reference)?;
    if let Some((why, help)) = lacks_vm(&view) {
        return Err(failed(&view, vain, format!("it {why}")).help(help));
    }
    if view.state == State::Paused {
        let help = format!("`kvmlet unpause {}` has it go on", view.called());
        return Err(failed(&view, vain, "it is paused").help(help));
    }
    match connect(instance.directory(), PATIENCE) {
        Ok(agent) => Ok((view, agent)),
        Err(error) => Err(failed(&view, vain, error)),
    }
}

/// That, for any other reason.
pub(in super::super) fn failed(view: &View, vain: &str, why: impl Into<Box<dyn Error>>) -> Failed {
    Failed::in_vain(format!("{vain} instance `{}`", view.called()), why)
}
