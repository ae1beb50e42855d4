//! The process of a pool: in a session of its own, without a terminal.

use super::name;
use crate::instances::book;
use crate::{Failed, Outcome, beside};
use clap::Args;
use kvmlet_manager::{Holder, Name, PoolLock, Pools, Told};
use kvmlet_sys::signals::{self, ENDING};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::setsid;
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Keep the VMs of a pool: for kvmlet itself. Standard input is the pool's lock.
#[derive(Args)]
pub(super) struct Hold {
    #[arg(long)]
    size: u32,
    #[arg(value_parser = name)]
    name: Name,
    file: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

impl Hold {
    pub fn run(self) -> Outcome {
        // Whoever started it may end without it.
        let _ = setsid();
        // A script has its jobs in the background ignore some.
        signals::heed(&ENDING);
        let held = self.hold();
        if let Err(failed) = &held {
            // If it has begun, nobody hears this any more.
            tell("empty", &failed.to_string());
        }
        held.map(|()| 0)
    }

    fn hold(self) -> Result<(), Failed> {
        let lock = fcntl_dupfd_cloexec(stdin(), 3).map_err(io::Error::from);
        let lock = lock.and_then(PoolLock::inherited).map_err(Failed::new)?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        null.and_then(|null| dup2_stdin(&null))
            .map_err(|error| Failed::new(io::Error::from(error)))?;
        let file = File::open(&self.file).map_err(Failed::new)?;
        if self.flags.is_empty() {
            // Where it was started may be removed or unmounted. (Flags may name files from there.)
            let _ = std::env::set_current_dir("/");
        }
        let heard_by = fcntl_dupfd_cloexec(stdout(), 3).map_err(io::Error::from);
        let heard_by = heard_by.map_err(Failed::new)?;
        let machine = || beside::machine().map_err(|failed| io::Error::other(failed.to_string()));
        let holder =
            Holder::new(self.size, file, self.file, machine, self.flags).heard_by(heard_by);
        let told = &mut |told: Told<'_>| match told {
            Told::Full => tell("ready", ""),
            Told::Short(why) => tell("short", why),
            Told::Empty(why) => tell("empty", why),
        };
        Pools::of(&book()?)?.hold(&self.name, lock, holder, told)?;
        Ok(())
    }
}

/// Tells whoever waits, and may have gone away, who does not wait from then on.
fn tell(word: &str, why: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{word} {why}").and_then(|()| out.flush());
    if let Ok(null) = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = dup2_stdout(&null);
    }
}
