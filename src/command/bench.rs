//! The command line of `kvmlet-bench`, which `kvmlet completions` and `kvmlet man` have to know, too: `kvmlet bench` executes
//! it.

use crate::Verbosity;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kvmlet_spec::CpuQuota;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Measure what a microVM costs on this host, beside containers and processes.
///
/// What is started is built by `images/build bench`, and the guest kernel by `kernels/build`.
#[derive(Parser)]
#[command(
    name = "kvmlet-bench",
    bin_name = "kvmlet bench",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Bench {
    /// How much is said.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What is measured.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured: the words about each are those of its flags.
#[derive(Subcommand)]
#[allow(missing_docs)]
pub enum What {
    Startup(Startup),
    Density(Density),
    Io(Io),
}

/// How to print a result.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Format {
    /// A table, for people.
    #[default]
    Text,
    /// Everything that was measured, for programs.
    Json,
}

/// Who takes part in a comparison, and what is made of its result.
#[derive(Args)]
pub struct Contest {
    /// Start only these, beside the bare process.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write a page with pictures as well, for a browser; `-` prints it instead of the result.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Start the same service as a process, in containers, and in microVMs, and compare the times.
///
/// Clocks start right before each command is spawned and stop when the service's line `ready` has been read. Rounds
/// are interleaved: every contestant starts once in each, in an order that changes. Those that take long take part in
/// fewer rounds.
#[derive(Args)]
pub struct Startup {
    /// Rounds to measure [default: 100].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(1..=1_000_000))]
    pub rounds: Option<u32>,
    /// Seconds for each contestant; who is slow takes part in fewer rounds, but at least 3 [default: 15].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = whole(1..=86_400))]
    pub budget: Option<u32>,
    /// Start all once more while this many idle VMs of kvmlet's run, of 16 MiB each.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, allow_negative_numbers = true, value_parser = whole(0..=10_000))]
    pub beside: u32,
    /// Start kvmlet with a network of its own and a published port as well.
    #[arg(long)]
    pub net: bool,
    /// Start kvmlet, crun and runc with this share of CPUs as well.
    #[arg(long, value_name = "CPUS", allow_negative_numbers = true)]
    pub cpu_quota: Option<CpuQuota>,
    /// Who takes part, and what is made of the result.
    #[command(flatten)]
    pub contest: Contest,
}

/// Run more and more instances at once, and tell what each keeps of memory and how fast they start.
///
/// The same service, which stays this time, as a process, in containers and in microVMs: 1, 2, 4, 8 ... instances,
/// until there are --limit, or memory or time is used up.
#[derive(Args)]
pub struct Density {
    /// Most instances at once [default: 64].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(1..=100_000))]
    pub limit: Option<u32>,
    /// How many start at the same time [default: the number of CPUs].
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = whole(1..=1024))]
    pub parallel: Option<u32>,
    /// Seconds for each contestant [default: 60].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = whole(1..=86_400))]
    pub budget: Option<u32>,
    /// Who takes part, and what is made of the result.
    #[command(flatten)]
    pub contest: Contest,
}

/// Compare a disk and an interface of a VM with the same work on the host, and in other VMMs.
///
/// Guests are bare metal and run at native speed on any KVM. Host and guests take turns, round by round.
#[derive(Args)]
pub struct Io {
    /// Rounds to measure.
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true, value_parser = whole(1..=1_000_000))]
    pub rounds: u32,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write a page with pictures as well, for a browser; `-` prints it instead of the result.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Reads a whole number of that range.
fn whole(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "this takes a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Options stand behind the verb that they are of.
pub fn point_at_verbs(mut error: clap::Error) -> clap::Error {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let before = usage.is_some_and(|usage| usage.contains("<COMMAND>"));
    if error.kind() == ErrorKind::UnknownArgument && before {
        let tip = "`kvmlet bench startup`, `density` and `io` have options of their own, which stand behind that";
        let tips = vec![StyledStr::from(tip)];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_told_what_would_do() {
        for (arguments, expected) in [
            (
                "startup --rounds two",
                "'--rounds <N>': this takes a whole number from 1 to 1000000",
            ),
            ("startup --rounds 0", "a whole number from 1"),
            ("startup --rounds -1", "a whole number from 1"),
            ("startup --budget 1.5", "from 1 to 86400"),
            ("density --limit many", "from 1 to 100000"),
            ("density --parallel 9999", "from 1 to 1024"),
            ("io --rounds x", "from 1 to 1000000"),
            (
                "--rounds two",
                "`kvmlet bench startup`, `density` and `io` have options of their own",
            ),
        ] {
            let words = std::iter::once("bench").chain(arguments.split(' '));
            let Err(error) = Bench::try_parse_from(words) else {
                panic!("{arguments} is taken");
            };
            let error = point_at_verbs(error).to_string();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }
}
