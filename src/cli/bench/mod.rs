//! `kvmlet bench`: what a microVM costs on this host, beside containers and processes.

mod density;
mod io;
mod progress;
mod startup;
mod table;

use super::{Failed, Outcome, defaults};
use crate::bench::contestant::Presence;
use crate::bench::facts::HostFacts;
use crate::bench::{Error, Programs, Step};
use crate::host::environment;
use crate::host::whole_file::WholeFile;
use clap::{Args, Subcommand, ValueEnum};
use progress::Progress;
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Measure what a microVM costs on this host, beside containers and processes.
///
/// What is started is built by `images/build bench`, and the guest kernel by `kernels/build`.
#[derive(Args)]
pub(super) struct Bench {
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

impl Bench {
    pub fn run(self) -> Outcome {
        // Rights that the file gives are for VMs; a benchmark runs whatever is on PATH.
        if let Err(error) = environment::drop_file_capabilities() {
            let help = error.help();
            return Err(Failed::new(error).help(help));
        }
        match self.what {
            What::Startup(verb) => verb.run(),
            What::Density(verb) => verb.run(),
            What::Io(verb) => verb.run(),
        }
    }
}

/// What is started, from the cache.
fn programs() -> Result<Programs, Failed> {
    let built = defaults::bench()
        .ok_or_else(|| Failed::new("there is no cache directory").help("set HOME"))?;
    let kvmlet = std::env::current_exe()
        .map_err(|error| Failed::new(format!("kvmlet cannot find its own executable: {error}")))?;
    Ok(Programs {
        kvmlet,
        kernel: defaults::kernel(),
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
        other => other?,
    };
    if let Some((file, page)) = &show.page {
        file.write(page(&result).as_bytes())?;
        if file.is_standard_output() {
            return Ok(0);
        }
    }
    print(&match show.format {
        Format::Text => (show.text)(&result),
        Format::Json => serde_json::to_string_pretty(&result).map_err(Failed::new)? + "\n",
    })?;
    Ok(0)
}

/// Writes a result to standard output; whoever closed it wants no more.
fn print(text: &str) -> Result<(), Failed> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failed::new(error)),
        _ => Ok(()),
    }
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

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let help = error.help();
        let failed = Failed::new(error);
        match help {
            Some(help) => failed.help(help),
            None => failed,
        }
    }
}
