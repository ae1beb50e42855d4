//! The log of a supervisor: lines on its standard error, whose reader nobody waits for.

use super::Verbosity;
use kvmlet_sys::standard_error;
use log::{LevelFilter, Log, Metadata, Record};

struct Lines;

impl Log for Lines {
    fn enabled(&self, message: &Metadata<'_>) -> bool {
        message.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (level, target) = (record.level(), record.target());
            standard_error::say(format_args!("[{level:<5} {target}] {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// From now on what happens is said.
pub(super) fn start(verbosity: Verbosity) {
    // The program that this one is may have set another, before it came here: then that is what it wants.
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(match verbosity {
            Verbosity::Warnings => LevelFilter::Warn,
            Verbosity::Steps => LevelFilter::Info,
            Verbosity::Details => LevelFilter::Debug,
        });
    }
}
