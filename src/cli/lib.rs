//! The command line: one file per verb. Turns flags into a configuration and results into text.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod attach;
mod bench;
mod beside;
mod boot;
mod chosen_id;
mod clone;
mod cp;
mod docker;
mod doctor;
mod events;
mod exec;
mod exit_code;
mod generate;
mod held;
mod images;
mod inspect;
mod instances;
mod keep;
mod kill;
mod logs;
#[cfg(test)]
mod manual_tests;
mod pause;
mod pool;
mod port;
mod ports;
mod prune;
mod ps;
mod rename;
mod restart;
mod restore;
mod resume;
mod rm;
mod serve;
mod service;
mod service_unit;
mod session;
mod signal;
mod size;
mod snapshot;
mod start;
mod stats;
mod stop;
mod stopping;
mod suspend;
mod top;
mod unpause;
mod volume;
mod wait;
#[cfg(test)]
mod words_tests;

use beside::{KVMLET, SERVE, VERBS, become_program};
use clap::{Command, Parser, Subcommand};
use exit_code::ExitCode;
use kvmlet_command::firecracker::{FIRECRACKER, JAILER};
use kvmlet_command::{Failed, Outcome, Verbosity, format};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Instant;

/// One service per microVM on Linux KVM.
#[derive(Parser)]
#[command(
    name = "kvmlet",
    bin_name = "kvmlet",
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
    Restore(Box<restore::Restore>),
    #[command(flatten)]
    Instance(InstanceVerb),
    #[command(flatten)]
    Images(images::ImageVerb),
    #[command(hide = true)]
    Keep(keep::Keep),
    #[command(flatten)]
    Serve(serve::ServeVerb),
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
    Suspend(suspend::Suspend),
    Resume(resume::Resume),
    Stats(stats::Stats),
    Port(port::Port),
    Wait(wait::Wait),
    Rename(rename::Rename),
    Rm(rm::Rm),
    Snapshot(snapshot::Snapshot),
    Clone(clone::Clone),
    #[command(hide = true)]
    KeepTemplate(service::KeepTemplate),
    Prune(prune::Prune),
    Events(events::Events),
    ServiceUnit(service_unit::ServiceUnit),
    Volume(volume::VolumeVerbs),
    Pool(pool::PoolVerbs),
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
            Self::Suspend(verb) => verb.run(),
            Self::Resume(verb) => verb.run(),
            Self::Stats(verb) => verb.run(),
            Self::Port(verb) => verb.run(),
            Self::Wait(verb) => verb.run(),
            Self::Rename(verb) => verb.run(),
            Self::Rm(verb) => verb.run(),
            Self::Snapshot(verb) => verb.run(),
            Self::Clone(verb) => verb.run(),
            Self::KeepTemplate(verb) => service::keep_beside(&verb),
            Self::Prune(verb) => verb.run(),
            Self::Events(verb) => verb.run(),
            Self::ServiceUnit(verb) => verb.run(),
            Self::Volume(verb) => verb.run(),
            Self::Pool(verb) => verb.run(),
        };
        outcome.or_else(|failed| {
            failed.print();
            Ok(ExitCode::NotDone.number())
        })
    }
}

/// A verb whose start counts, alone: a VM need not wait until the flags of all others are put together.
#[derive(Subcommand)]
enum BootOnly {
    Boot(Box<boot::Boot>),
}

#[derive(Subcommand)]
enum RunOnly {
    Run(Box<service::Run>),
}

#[derive(Subcommand)]
enum RestoreOnly {
    Restore(Box<restore::Restore>),
}

#[derive(Subcommand)]
enum KeepOnly {
    #[command(hide = true)]
    Keep(keep::Keep),
}

/// It tells what VMs can have, by the rights that the file of this program gives.
#[derive(Subcommand)]
enum DoctorOnly {
    Doctor(doctor::Doctor),
}

/// The verbs that `kvmlet` does itself.
const OWN: [&str; 5] = ["boot", "run", "restore", "keep", "doctor"];

/// Runs the command line of `kvmlet`, a process which began at `started`, and returns its exit code. What is not about running a
/// VM is another program's: this one is in the memory of each VM's process, and within reach of who takes that over. No verb is
/// made part of this function: its frame stays for as long as a VM runs, and would have what each of the others takes.
pub fn run(started: Instant) -> u8 {
    kvmlet_command::run(|| {
        let mut words: Vec<OsString> = kvmlet_sys::arguments::all().collect();
        let name = words.remove(0);
        if let Some(line) = Path::new(&name).file_name().and_then(serve::named) {
            return serve::become_line(line, words);
        }
        let verb = words.iter().find(|word| !is_verbosity(word));
        match verb.and_then(|verb| verb.to_str()) {
            Some("boot") => {
                let (BootOnly::Boot(verb), _) = parse();
                verb.run(started)
            }
            Some("run") => {
                let (RunOnly::Run(verb), _) = parse();
                verb.run()
            }
            Some("restore") => {
                let (RestoreOnly::Restore(verb), _) = parse();
                verb.run(started)
            }
            Some("keep") => {
                let (KeepOnly::Keep(verb), _) = parse();
                verb.run()
            }
            Some("doctor") => {
                let (DoctorOnly::Doctor(verb), _) = parse();
                verb.run()
            }
            Some(FIRECRACKER | JAILER) => {
                let words = words.into_iter().skip_while(|word| is_verbosity(word));
                become_program(SERVE, words)
            }
            _ => become_program(VERBS, words.into_iter()),
        }
    })
}

/// Runs the command line of `kvmlet-verbs`, which is the one that `kvmlet` was given, and returns the exit code.
pub fn run_verb() -> u8 {
    kvmlet_command::run(|| {
        if let Some(verb) = bench::Bench::help() {
            return verb.run(&Verbosity::default());
        }
        if let Some(outcome) = images::explain().or_else(serve::explain) {
            return outcome;
        }
        match parse() {
            // Somebody has executed this program by hand.
            (
                Verb::Boot(_) | Verb::Run(_) | Verb::Restore(_) | Verb::Keep(_) | Verb::Doctor(_),
                verbosity,
            ) => {
                let verbosity = verbosity.arguments().map(OsStr::to_os_string);
                let words = kvmlet_sys::arguments::all().skip(1);
                let words = words.skip_while(|word| OWN.iter().all(|verb| word != verb));
                become_program(KVMLET, verbosity.chain(words))
            }
            (Verb::Instance(verb), _) => verb.run(),
            (Verb::Images(verb), verbosity) => verb.run(&verbosity),
            (Verb::Serve(verb), _) => verb.run(),
            (Verb::Bench(verb), verbosity) => verb.run(&verbosity),
            (Verb::Completions(verb), _) => verb.run(),
            (Verb::Man(verb), _) => verb.run(),
        }
    })
}

/// Is it a flag that stands before verbs, too?
fn is_verbosity(word: &OsStr) -> bool {
    let short = |word: &str| {
        let letters = word.strip_prefix('-').unwrap_or_default();
        !letters.is_empty() && letters.chars().all(|letter| letter == 'v')
    };
    word == "--verbose" || word.to_str().is_some_and(short)
}

/// Reads the command line and starts the log. Does not return when it is wrong, or asks for help.
#[inline(never)]
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
            "channel-fd",
            "config",
            "control-fd",
            "paused",
            "ready-fd",
            "started-by",
            "verbose",
            "help",
            "metadata",
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
    fn flags_before_a_verb_are_told_from_it() {
        for word in ["-v", "-vv", "--verbose"] {
            assert!(is_verbosity(OsStr::new(word)), "{word}");
        }
        for word in [
            "",
            "-",
            "--",
            "v",
            "-vh",
            "-V",
            "--version",
            "run",
            "--verbose=1",
        ] {
            assert!(!is_verbosity(OsStr::new(word)), "{word}");
        }
    }

    #[test]
    fn one_verb_alone_reads_as_among_all() {
        let usage = |mut command: clap::Command, verb: &str| {
            command.build();
            let verb = command.find_subcommand_mut(verb).unwrap();
            verb.render_long_help().to_string()
        };
        let all = |verb| usage(Cli::<Verb>::command(), verb);
        let alone = usage(Cli::<BootOnly>::command(), "boot");
        assert!(
            alone.contains("Usage: kvmlet boot [OPTIONS] [-- <COMMAND>...]"),
            "{alone}"
        );
        assert_eq!(alone, all("boot"));
        assert_eq!(usage(Cli::<RunOnly>::command(), "run"), all("run"));
        let alone = usage(Cli::<RestoreOnly>::command(), "restore");
        assert_eq!(alone, all("restore"));
        assert_eq!(usage(Cli::<KeepOnly>::command(), "keep"), all("keep"));
        assert_eq!(usage(Cli::<DoctorOnly>::command(), "doctor"), all("doctor"));
    }
}
