//! `kvmlet attach`.

use super::exit_code::ExitCode;
use super::instances::row::code;
use super::instances::{book, lacks_vm, look};
use super::service::Words;
use super::session::{Left, Session, SessionError, Wanted};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Moment, supervision};

/// Connect this terminal to the service of an instance, and end with its exit code.
///
/// Signals are the service's. Ctrl-P and then Ctrl-Q leave it to itself, if it was run with -it.
#[derive(Args)]
pub(super) struct Attach {
    /// Standard input stays here.
    #[arg(long)]
    no_stdin: bool,
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

impl Attach {
    pub fn run(self) -> Outcome {
        let (instance, view) = look(&book()?, &self.instance)?;
        let called = view.called().to_owned();
        if let Some((why, help)) = lacks_vm(&view) {
            return Err(Failed::new(format!("instance `{called}` {why}")).help(help));
        }
        let agent = supervision::attach(instance.directory());
        let mut agent = agent.map_err(|error| {
            Failed::in_vain(
                format!("nobody can be attached to instance `{called}`"),
                error,
            )
        })?;
        agent.client().attach();
        let wanted = Wanted {
            input: view.asked.service.input && !self.no_stdin,
            terminal: view.asked.service.terminal,
            group: false,
        };
        let since = Moment::now();
        match Session::new(agent, wanted).and_then(Session::run) {
            Ok(Left::Detached) => Ok(0),
            Ok(Left::Signal(signal)) => Ok(ExitCode::Signal(signal).number()),
            Ok(Left::Ended(ended)) => Ok(ended.exit_code()),
            Err(error) => {
                let words = Words::of(&instance, since);
                let end = instance.wait_for_run()?;
                match error {
                    SessionError::Agent(_) => words.tell(),
                    error => drop(error.tell(&called)),
                }
                Ok(code(&end))
            }
        }
    }
}
