//! The command line: one file per verb. Turns flags into a configuration and results into text.

mod bench;
mod boot;
mod console;
mod defaults;
mod doctor;
mod error;
mod generate;
mod stats;
mod supervisor;
mod terminal;

use clap::{ArgAction, Parser, Subcommand};
use error::Failed;
use std::process::ExitCode;
use std::time::Instant;

/// The exit code when kvmlet itself fails, as docker's.
const FAILED: u8 = 125;

/// One service per microVM on Linux KVM.
#[derive(Parser)]
#[command(
    name = "kvmlet",
    version,
    max_term_width = 100,
    propagate_version = true
)]
struct Cli {
    /// Say more on standard error (-v: what happens, -vv: all details).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Boot(Box<boot::Boot>),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Runs the command line of this process, which began at `started`.
pub fn run(started: Instant) -> ExitCode {
    use_one_arena();
    let cli = Cli::parse();
    start_log(cli.verbose);
    let result = match cli.verb {
        Verb::Boot(verb) => verb.run(started),
        Verb::Bench(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            failed.print();
            ExitCode::from(FAILED)
        }
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
        Cli::command().debug_assert();
    }
}
