//! The command line: what a microVM costs on this host, beside containers and processes.

mod density;
mod io;
mod progress;
mod startup;
mod table;

use kvmlet_bench::contestant::{LOAD, Presence, load};
use kvmlet_bench::facts::HostFacts;
use kvmlet_bench::{Error, Programs, Step};
use kvmlet_command::bench::{Bench, Format, What, point_at_verbs};
use kvmlet_command::{Failed, Outcome, print};
use kvmlet_host::state::built;
use kvmlet_sys::environment;
use kvmlet_sys::whole_file::WholeFile;
use progress::Progress;
use serde::Serialize;
use std::path::Path;

/// Runs the command line of this process.
pub fn run() -> Outcome {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == LOAD) {
        return Err(Failed::new(load(words)));
    }
    let line: Bench = kvmlet_command::parse(|command| command, point_at_verbs);
    line.verbosity.start_log();
    // Rights that a file gives are for VMs; a benchmark runs whatever is on PATH.
    environment::drop_file_capabilities().map_err(Failed::of_environment)?;
    match line.what {
        What::Startup(flags) => startup::run(flags),
        What::Density(flags) => density::run(flags),
        What::Io(flags) => io::run(flags),
    }
}

/// What is started: kvmlet from the directory of this program, all else from the cache.
fn programs() -> Result<Programs, Failed> {
    let own = std::env::current_exe().map_err(|error| {
        Failed::new(format!(
            "kvmlet-bench cannot find its own executable: {error}"
        ))
    })?;
    Ok(Programs {
        kvmlet: own.with_file_name("kvmlet"),
        kernel: Some(built::kernel()),
        built: built::bench(),
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
    path.map(WholeFile::open)
        .transpose()
        .map_err(Failed::of_file)
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
    let mut written = Ok(());
    if let Some((file, page)) = &show.page {
        written = file.write(page(&result).as_bytes());
        if file.is_standard_output() {
            return written.map(|()| 0).map_err(Failed::of_file);
        }
    }
    // What was measured is told, whatever becomes of its page.
    print(match show.format {
        Format::Text => (show.text)(&result),
        Format::Json => serde_json::to_string_pretty(&result).map_err(Failed::new)? + "\n",
    })?;
    written.map(|()| 0).map_err(Failed::of_file)
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
