//! The command line: one file per verb. Turns flags into a configuration and results into text.

mod bench;
mod boot;
mod console;
mod defaults;
mod docker;
mod doctor;
mod error;
mod exit_code;
mod generate;
mod input;
mod output;
mod silence;
mod stats;
mod stopping;
mod supervisor;
mod terminal;

use crate::host::environment;
use crate::host::standard_error::{self, StandardError};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use error::Failed;
use exit_code::ExitCode;
use std::mem::ManuallyDrop;
use std::time::Instant;

/// One service per microVM on Linux KVM.
#[derive(Parser)]
#[command(
    name = "kvmlet",
    version,
    max_term_width = 100,
    propagate_version = true
)]
struct Cli<V: Subcommand = Verb> {
    /// Say more on standard error (-v: what happens, -vv: all details).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: V,
}

#[derive(Subcommand)]
enum Verb {
    Boot(Box<boot::Boot>),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// The verb whose start counts, alone: a VM need not wait until the flags of all others are put together.
#[derive(Subcommand)]
enum BootOnly {
    Boot(Box<boot::Boot>),
}

/// Runs the command line of this process, which began at `started`, and returns its exit code.
pub fn run(started: Instant) -> u8 {
    if let Err(error) = environment::disarm() {
        let help = error.help();
        Failed::new(error).help(help).print();
        return ExitCode::Failed.number();
    }
    use_one_arena();
    let boots = std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == "boot");
    let result = if boots {
        let BootOnly::Boot(verb) = parse();
        verb.run(started)
    } else {
        match parse() {
            Verb::Boot(verb) => verb.run(started),
            Verb::Bench(verb) => verb.run(),
            Verb::Doctor(verb) => verb.run(),
            Verb::Completions(verb) => verb.run(),
            Verb::Man(verb) => verb.run(),
        }
    };
    let code = result.unwrap_or_else(|failed| {
        failed.print();
        ExitCode::Failed.number()
    });
    standard_error::finish();
    code
}

/// Reads the command line and starts the log. Does not return when it is wrong, or asks for help.
fn parse<V: Subcommand>() -> V {
    // Taking the definition apart again would take a fifth of the time that reading takes.
    let mut command = ManuallyDrop::new(Cli::<V>::command());
    let mut matches = command
        .try_get_matches_from_mut(std::env::args_os())
        .unwrap_or_else(|error| leave(&name_argument(error, &mut command)));
    let cli = Cli::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| leave(&error.format(&mut command)));
    start_log(cli.verbose);
    cli.verb
}

/// Prints what clap has to say, help or what is wrong, and ends the process: its own exit code is another one.
fn leave(said: &clap::Error) -> ! {
    // Nobody is left to tell when the output is gone.
    let _ = said.print();
    let code = match said.use_stderr() {
        true => ExitCode::Failed,
        false => ExitCode::Done,
    };
    std::process::exit(code.number().into())
}

/// Adds what clap does not tell: which argument is not UTF-8, and what is called otherwise than in docker.
fn name_argument(error: clap::Error, command: &mut clap::Command) -> clap::Error {
    let mut all = std::env::args_os().skip(1);
    match error.kind() {
        ErrorKind::InvalidUtf8 => match all.find(|argument| argument.to_str().is_none()) {
            Some(argument) => command.error(
                ErrorKind::InvalidUtf8,
                format!("the argument {argument:?} is not UTF-8; only paths of files may be anything else"),
            ),
            None => error,
        },
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => docker::explain(error),
        _ => error,
    }
}

/// glibc gives each thread an arena of its own, which takes system calls and memory; vCPU threads hardly
/// allocate.
fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator; there is only one thread yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(StandardError)))
        .init();
}

/// What a verb returns: the exit code of the process, or what went wrong.
type Outcome = Result<u8, Failed>;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::<Verb>::command().debug_assert();
    }

    #[test]
    fn one_verb_alone_reads_as_among_all() {
        let usage = |mut command: clap::Command| {
            command.build();
            let boot = command.find_subcommand_mut("boot").unwrap();
            boot.render_long_help().to_string()
        };
        let alone = usage(Cli::<BootOnly>::command());
        assert!(
            alone.contains("Usage: kvmlet boot [OPTIONS] [-- <COMMAND>...]"),
            "{alone}"
        );
        assert_eq!(alone, usage(Cli::<Verb>::command()));
    }
}
