//! The command line: what a microVM costs on this host, beside containers and processes.

mod density;
mod io;
mod progress;
mod startup;
mod table;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand, ValueEnum};
use kvmlet_bench::contestant::Presence;
use kvmlet_bench::facts::HostFacts;
use kvmlet_bench::{Error, Programs, Step};
use kvmlet_command::{Failed, Outcome, Verbosity, print};
use kvmlet_host::built;
use kvmlet_sys::environment;
use kvmlet_sys::whole_file::WholeFile;
use progress::Progress;
use serde::Serialize;
use std::ops::RangeInclusive;
use std::path::Path;

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
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Startup(startup::Startup),
    Density(density::Density),
    Io(io::Io),
}

/// How to print a result.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A table, for people.
    #[default]
    Text,
    /// Everything that was measured, for programs.
    Json,
}

/// Runs the command line of this process.
pub fn run() -> Outcome {
    let cli: Cli = kvmlet_command::parse(point_at_verbs);
    cli.verbosity.start_log();
    // Rights that a file gives are for VMs; a benchmark runs whatever is on PATH.
    environment::drop_file_capabilities().map_err(|error| Failed::new(error).help(error.help()))?;
    match cli.what {
        What::Startup(verb) => verb.run(),
        What::Density(verb) => verb.run(),
        What::Io(verb) => verb.run(),
    }
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
fn point_at_verbs(mut error: clap::Error) -> clap::Error {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let before = usage.is_some_and(|usage| usage.contains("<COMMAND>"));
    if error.kind() == ErrorKind::UnknownArgument && before {
        let tip = "`kvmlet bench startup`, `density` and `io` have options of their own, which stand behind that";
        let tips = vec![StyledStr::from(tip)];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// What is started: kvmlet from the directory of this program, all else from the cache.
fn programs() -> Result<Programs, Failed> {
    let built = built::bench()
        .ok_or_else(|| Failed::new("there is no cache directory").help("set HOME"))?;
    let own = std::env::current_exe().map_err(|error| {
        Failed::new(format!(
            "kvmlet-bench cannot find its own executable: {error}"
        ))
    })?;
    Ok(Programs {
        kvmlet: own.with_file_name("kvmlet"),
        kernel: built::kernel(),
        built,
    })
}

/// Is told each step of a benchmark.
type Watch<'a> = &'a mut dyn FnMut(Step<'_>);

/// What comes of a result: a table or JSON, and a page for a browser where there is a file for it.
struct Presentation<T> {
    format: Format,
    text: Render<T>,
    page: Option<(WholeFile, Render<T>)>,
}

type Render<T> = fn(&T) -> String;

/// Opens the file that a page is to be written to: whoever has waited for a benchmark wants to have the page.
fn open_report(path: Option<&Path>) -> Result<Option<WholeFile>, Failed> {
    Ok(path.map(WholeFile::open).transpose()?)
}

/// Measures with a line of progress, and prints the result. A signal ends it without one.
fn conduct<T: Serialize>(
    show: &Presentation<T>,
    measure: impl FnOnce(Watch<'_>) -> Result<T, Error>,
) -> Outcome {
    let mut progress = Progress::begin();
    let result = measure(&mut |step| progress.step(step));
    drop(progress);
    let result = match result {
        Err(Error::Interrupted(signal)) => return Ok(128 + signal as u8),
        Err(error) => {
            let help = error.help();
            return Err(Failed::with(error, help));
        }
        Ok(result) => result,
    };
    if let Some((file, page)) = &show.page {
        file.write(page(&result).as_bytes())?;
        if file.is_standard_output() {
            return Ok(0);
        }
    }
    print(match show.format {
        Format::Text => (show.text)(&result),
        Format::Json => serde_json::to_string_pretty(&result).map_err(Failed::new)? + "\n",
    })?;
    Ok(0)
}

/// What stands above every table.
fn heading(title: &str, host: &HostFacts, warnings: &[String]) -> String {
    let mut text = format!(
        "{title}\n{}, {} CPUs ({}), KVM: {}\n",
        host.kernel, host.cpus, host.cpu, host.kvm
    );
    for warning in warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}

/// Why a contestant did not take part, if it did not.
fn absences(name: &str, presence: &Presence) -> String {
    match presence {
        Presence::Present { .. } => String::new(),
        Presence::Absent { install } => format!("absent: {name}; to install it: {install}\n"),
        Presence::Unusable { message } => format!("unusable: {name}: {message}\n"),
    }
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
            let Err(error) = Cli::try_parse_from(words) else {
                panic!("{arguments} is taken");
            };
            let error = point_at_verbs(error).to_string();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }
}
