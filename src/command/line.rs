//! The command line.

use crate::FAILED;
use clap::error::ErrorKind;
use clap::{Command, Error, Parser};
use kvmlet_sys::output::write_whole;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;

/// Reads the command line of this process. Does not return when it is wrong, or asks for help. `explain` may add what
/// is known of an argument or a subcommand that there is not; `complete` adds what only help tells.
pub fn parse<P: Parser>(complete: fn(Command) -> Command, explain: fn(Error) -> Error) -> P {
    let asks = |argument: OsString| {
        ["-h", "--help", "help"]
            .iter()
            .any(|help| argument == *help)
    };
    let command = match kvmlet_sys::arguments::all().skip(1).any(asks) {
        true => complete(P::command()),
        false => P::command(),
    };
    // Taking the definition apart again would take a fifth of the time that reading takes.
    let mut command = ManuallyDrop::new(command);
    let mut matches = command
        .try_get_matches_from_mut(kvmlet_sys::arguments::all())
        .unwrap_or_else(|error| leave(&name_argument(error, &mut command, explain)));
    P::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| leave(&error.format(&mut command)))
}

/// Prints what clap has to say, help or what is wrong, and ends the process: its own exit code is another one.
fn leave(said: &Error) -> ! {
    let out = io::stdout();
    // Nobody is left to tell when the output is gone.
    let _ = match said.use_stderr() || out.is_terminal() {
        true => said.print(),
        false => write_whole(out.as_fd(), said.render().to_string().as_bytes()),
    };
    let code = match said.use_stderr() {
        true => FAILED,
        false => 0,
    };
    std::process::exit(code.into())
}

/// Adds what clap does not tell: which argument is not UTF-8.
fn name_argument(error: Error, command: &mut Command, explain: fn(Error) -> Error) -> Error {
    let mut all = kvmlet_sys::arguments::all().skip(1);
    match error.kind() {
        ErrorKind::InvalidUtf8 => match all.find(|argument| argument.to_str().is_none()) {
            Some(argument) => command.error(
                ErrorKind::InvalidUtf8,
                format!("the argument {argument:?} is not UTF-8; only paths of files may be anything else"),
            ),
            None => error,
        },
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::TooManyValues => {
            explain(error)
        }
        _ => error,
    }
}
