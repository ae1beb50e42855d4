//! Verbs by which other programs drive VMs, by an API: another program reads their flags.

use super::Outcome;
use super::beside::{SERVE, become_program, help};
use super::images::Words;
use clap::Subcommand;
use kvmlet_command::firecracker::{FIRECRACKER_LINE, JAILER_LINE, Line};
use kvmlet_command::serve::SERVE_LINE;
use std::ffi::OsString;

/// All of these command lines.
pub(super) const LINES: [Line; 3] = [FIRECRACKER_LINE, JAILER_LINE, SERVE_LINE];

/// What `kvmlet-serve` does.
#[derive(Subcommand)]
pub(super) enum ServeVerb {
    /// Serve Firecracker's API for one VM.
    Firecracker(Words),
    /// Start `kvmlet firecracker` as Firecracker's jailer does.
    Jailer(Words),
    /// Serve an API for all VMs of this user.
    Serve(Words),
}

impl ServeVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        let (line, words) = match self {
            Self::Firecracker(words) => (FIRECRACKER_LINE, words),
            Self::Jailer(words) => (JAILER_LINE, words),
            Self::Serve(words) => (SERVE_LINE, words),
        };
        become_line(&line, words.arguments)
    }
}

/// Goes on as the program of a command line.
pub(super) fn become_line(line: &Line, words: Vec<OsString>) -> Outcome {
    let verb = [line.verb.into()].into_iter();
    become_program(SERVE, verb.chain(words))
}

/// The command line that is of this name.
pub(super) fn named(name: &std::ffi::OsStr) -> Option<&'static Line> {
    LINES.iter().find(|line| name == line.verb)
}

/// What `kvmlet help firecracker` asks for: only the program knows.
pub(super) fn explain() -> Option<Outcome> {
    let line = named(help()?.first()?)?;
    Some(become_line(line, vec!["--help".into()]))
}
