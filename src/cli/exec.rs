//! `kvmlet exec`.

use super::Outcome;
use super::exit_code::ExitCode;
use super::instances::agent::{PATIENCE, failed, reach};
use super::service::{variable, variable_of};
use super::session::{Left, Session, SessionError, Wanted};
use clap::Args;
use kvmlet_control::agent::channel::{ProcessSpec, Role};
use kvmlet_manager::View;
use kvmlet_spec::ConsoleSize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

const VAIN: &str = "nothing can be executed in";

/// Of a terminal that does not say how big it is.
const USUAL_SIZE: ConsoleSize = ConsoleSize {
    columns: 80,
    rows: 24,
};

/// Run one more command in an instance that runs, and end with its exit code.
///
/// It has the variables, the user and the directory that the instance was run with. 126 says that it could not be executed, 127 that
/// there is none, 137 that the instance has ended before it has, 1 that kvmlet has failed; the command's own code may be one of these.
#[derive(Args)]
pub(super) struct Exec {
    /// Standard input goes to the command.
    #[arg(short, long)]
    interactive: bool,
    /// The command has a terminal, which is this one. Ctrl-P and then Ctrl-Q leave it to itself.
    #[arg(short, long)]
    tty: bool,
    /// Return when the command runs.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set an environment variable; without a value, pass on the one set here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable())]
    env: Vec<OsString>,
    /// Whom it runs as, by names or numbers of the image.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Directory in which it starts.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The instance, by its name, its id, or a beginning of that; and the command behind it, with its arguments.
    // One argument, so that nothing behind the instance is taken for a flag of this command.
    #[arg(
        value_names = ["INSTANCE", "COMMAND"],
        num_args = 2..,
        required = true,
        trailing_var_arg = true
    )]
    words: Vec<OsString>,
}

impl Exec {
    pub fn run(mut self) -> Outcome {
        let wanted = Wanted {
            input: self.interactive,
            terminal: self.tty,
            group: true,
        };
        wanted.check()?;
        let mut words = std::mem::take(&mut self.words).into_iter();
        let instance = words.next().unwrap_or_default();
        let command = words.map(OsString::into_vec).collect();
        let (view, mut agent) = reach(&instance.to_string_lossy(), VAIN)?;
        let called = view.called().to_owned();
        let detach = self.detach;
        let spec = self.process(&view, command);
        let started = agent.client().start(&spec, Role::Exec);
        started.map_err(|error| failed(&view, VAIN, error))?;
        if detach {
            return match agent.started(PATIENCE) {
                Ok(()) => Ok(0),
                Err(error) => Ok(SessionError::from_start(error).tell(&called)),
            };
        }
        let session = Session::new(agent, wanted).and_then(Session::run);
        Ok(match session {
            Ok(Left::Ended(ended)) => ended.exit_code(),
            Ok(Left::Detached) => 0,
            Ok(Left::Signal(signal)) => ExitCode::Signal(signal).number(),
            Err(error) => error.tell(&called),
        })
    }

    fn process(self, view: &View, command: Vec<Vec<u8>>) -> ProcessSpec {
        let service = &view.asked.service;
        let mut spec = service.beside(command);
        spec.workdir = self.workdir.map(Into::into).or(spec.workdir);
        spec.user = self.user.or(spec.user);
        spec.terminal = self
            .tty
            .then(|| kvmlet_run::terminal_size().unwrap_or(USUAL_SIZE));
        spec.input = self.interactive;
        spec.detached = self.detach;
        // As docker has it: what terminals are taken for, unless the service knows better.
        let has_term = spec.variables.iter().any(|(name, _)| name == b"TERM");
        let terminal = (self.tty && !has_term).then(|| (b"TERM".to_vec(), b"xterm".to_vec()));
        let own = self.env.iter().filter_map(variable_of);
        for (name, value) in terminal.into_iter().chain(own) {
            spec.variables.retain(|(other, _)| *other != name);
            spec.variables.push((name, value));
        }
        spec
    }
}
