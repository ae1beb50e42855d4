//! The command line: one file per verb. Turns flags into a configuration and results into text.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod attach;
mod bench;
mod boot;
mod cp;
mod docker;
mod doctor;
mod events;
mod exec;
mod exit_code;
mod format;
mod generate;
mod inspect;
mod instances;
mod keep;
mod kill;
mod logs;
mod pause;
mod port;
mod prune;
mod ps;
mod rename;
mod restart;
mod rm;
mod service;
mod service_unit;
mod session;
mod signal;
mod start;
mod stats;
mod stop;
mod top;
mod unpause;
mod wait;

use clap::{Command, Parser, Subcommand};
use exit_code::ExitCode;
use kvmlet_command::{Failed, Outcome, Verbosity};
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
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    verb: V,
}

#[derive(Subcommand)]
enum Verb {
    Boot(Box<boot::Boot>),
    Run(Box<service::Run>),
    #[command(flatten)]
    Instance(InstanceVerb),
    #[command(hide = true)]
    Keep(keep::Keep),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// What is done with instances that there are.
#[derive(Subcommand)]
enum InstanceVerb {
    Ps(ps::Ps),
    Exec(exec::Exec),
    Attach(attach::Attach),
    Cp(cp::Cp),
    Top(top::Top),
    Logs(logs::Logs),
    Inspect(inspect::Inspect),
    Start(start::Start),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Kill(kill::Kill),
    Pause(pause::Pause),
    Unpause(unpause::Unpause),
    Stats(stats::Stats),
    Port(port::Port),
    Wait(wait::Wait),
    Rename(rename::Rename),
    Rm(rm::Rm),
    Prune(prune::Prune),
    Events(events::Events),
    ServiceUnit(service_unit::ServiceUnit),
}

impl InstanceVerb {
    /// Does it. If it is not done, that is told, and its exit code is docker's: not the one of a run that has failed.
    fn run(self) -> Outcome {
        let outcome = match self {
            Self::Ps(verb) => verb.run(),
            Self::Exec(verb) => verb.run(),
            Self::Attach(verb) => verb.run(),
            Self::Cp(verb) => verb.run(),
            Self::Top(verb) => verb.run(),
            Self::Logs(verb) => verb.run(),
            Self::Inspect(verb) => verb.run(),
            Self::Start(verb) => verb.run(),
            Self::Stop(verb) => verb.run(),
            Self::Restart(verb) => verb.run(),
            Self::Kill(verb) => verb.run(),
            Self::Pause(verb) => verb.run(),
            Self::Unpause(verb) => verb.run(),
            Self::Stats(verb) => verb.run(),
            Self::Port(verb) => verb.run(),
            Self::Wait(verb) => verb.run(),
            Self::Rename(verb) => verb.run(),
            Self::Rm(verb) => verb.run(),
            Self::Prune(verb) => verb.run(),
            Self::Events(verb) => verb.run(),
            Self::ServiceUnit(verb) => verb.run(),
        };
        outcome.or_else(|failed| {
            failed.print();
            Ok(ExitCode::NotDone.number())
        })
    }
}

/// The verb whose start counts, alone: a VM need not wait until the flags of all others are put together.
#[derive(Subcommand)]
enum BootOnly {
    Boot(Box<boot::Boot>),
}

/// Runs the command line of this process, which began at `started`, and returns its exit code.
pub fn run(started: Instant) -> u8 {
    kvmlet_command::run(|| {
        let boots = std::env::args_os()
            .nth(1)
            .is_some_and(|verb| verb == "boot");
        if boots {
            let (BootOnly::Boot(verb), _) = parse();
            return verb.run(started);
        }
        if let Some(verb) = bench::Bench::help() {
            return verb.run(&Verbosity::default());
        }
        match parse() {
            (Verb::Boot(verb), _) => verb.run(started),
            (Verb::Run(verb), _) => verb.run(),
            (Verb::Instance(verb), _) => verb.run(),
            (Verb::Keep(verb), _) => verb.run(),
            (Verb::Bench(verb), verbosity) => verb.run(&verbosity),
            (Verb::Doctor(verb), _) => verb.run(),
            (Verb::Completions(verb), _) => verb.run(),
            (Verb::Man(verb), _) => verb.run(),
        }
    })
}

/// Reads the command line and starts the log. Does not return when it is wrong, or asks for help.
fn parse<V: Subcommand>() -> (V, Verbosity) {
    let complete = |command: Command| match command.find_subcommand("boot") {
        Some(_) => command.mut_subcommand("boot", boot::explained),
        None => command,
    };
    let cli: Cli<V> = kvmlet_command::parse(complete, docker::explain);
    cli.verbosity.start_log();
    (cli.verb, cli.verbosity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use kvmlet_spec::Setting;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::<Verb>::command().debug_assert();
    }

    /// A flag that `boot` has, and the setting that it is for.
    #[test]
    fn flags_are_those_of_the_settings() {
        let command = boot::explained(
            Cli::<BootOnly>::command()
                .find_subcommand("boot")
                .unwrap()
                .clone(),
        );
        let others = [
            "config",
            "control-fd",
            "ready-fd",
            "verbose",
            "help",
            "version",
        ];
        let flags = command.get_arguments().filter_map(|arg| arg.get_long());
        let mut flags: Vec<_> = flags.filter(|flag| !others.contains(flag)).collect();
        let settings = Setting::of_flags().filter(|it| *it != Setting::Command);
        let mut known: Vec<_> = settings.map(Setting::flag).collect();
        flags.sort_unstable();
        known.sort_unstable();
        assert_eq!(flags, known);
        for arg in command.get_arguments() {
            let long = arg.get_long().unwrap_or_default();
            let setting = Setting::of_flags().find(|it| it.flag() == long);
            let help = setting.map_or(String::new(), |it| {
                let keys = it.keys().map(|key| format!("{}=", key.name()));
                keys.collect::<Vec<_>>().join("\n")
            });
            let told = arg
                .get_long_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            for key in help.lines().map(|key| key.trim_end_matches('=')) {
                assert!(
                    told.contains(&format!("\n  {key}")),
                    "{long}: {key}: {told}"
                );
            }
        }
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
