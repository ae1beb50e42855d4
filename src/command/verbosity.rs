//! How much is said.

use clap::{ArgAction, Args};
use kvmlet_sys::standard_error::StandardError;
use std::ffi::OsStr;
use std::iter::repeat_n;

/// The flag that all commands have.
#[derive(Args, Default)]
pub struct Verbosity {
    /// Say more on standard error (-v: what happens, -vv: all details).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// The same for a verb whose `-v` says something else, as docker's does: by its long name alone.
#[derive(Args)]
pub struct LongVerbosity {
    /// Say more on standard error.
    // Of the same name for clap, which hands it to whoever asks for that.
    #[arg(id = "verbose", long = "verbose", action = ArgAction::Count)]
    _count: u8,
}

impl Verbosity {
    /// Starts the log; RUST_LOG may ask for other messages (env_logger).
    pub fn start_log(&self) {
        let level = match self.verbose {
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

    /// The same, as arguments of another command.
    pub fn arguments(&self) -> impl Iterator<Item = &'static OsStr> {
        repeat_n(OsStr::new("-v"), self.verbose.into())
    }
}
