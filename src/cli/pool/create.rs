//! `kvmlet pool create`.

use super::{name, warm};
use crate::instances::book;
use crate::{Cli, Failed, Outcome, RestoreOnly, beside};
use clap::{Args, Parser};
use kvmlet_manager::{Moment, Name, PoolLock, PoolNote, PooledInstances, Pools, PoolsError};
use kvmlet_sys::{descriptors, standard_error};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};

/// More VMs than a host can have.
const MOST: u32 = 10_000;
/// More than a pool has to say.
const SAID_BYTES: u64 = 16 << 10;

/// Keep VMs ready that go on from a snapshot, and print the pool's name when they are.
///
/// Each has its memory, its walls and its share of the host, and stands still until it is taken; another one takes its place.
/// A process in the background keeps them. If that ends, they do; those that were taken run on. With --warm they are instances, which
/// `kvmlet ps` lists as paused.
#[derive(Args)]
pub(super) struct Create {
    /// How many VMs are to be ready.
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    size: u32,
    /// What the pool is called [default: two words at random].
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<Name>,
    /// Of an image, as `kvmlet run --warm` would have it: its template is made, if there is none.
    #[arg(long)]
    warm: bool,
    /// A file that `kvmlet snapshot` has written, of a VM that is no instance. The pool goes on with it when another one has its name.
    /// With --warm, an image.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What each VM has on this host: the flags of `kvmlet restore`. With --warm, the command; behind `--` all that `kvmlet run`
    /// is told, its flags before the image.
    #[arg(
        value_name = "FLAGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    flags: Vec<OsString>,
}

impl Create {
    pub fn run(self) -> Outcome {
        match self.warm {
            true => self.run_warm(),
            false => self.run_machines(),
        }
    }

    /// Fills a pool of an image, as far as that can be done.
    fn run_warm(self) -> Outcome {
        let mut words = vec![self.file.clone().into_os_string()];
        words.extend(self.flags.iter().cloned());
        let Some((instances, image)) = warm::instances(&words)? else {
            return Ok(kvmlet_command::FAILED);
        };
        let pools = Pools::of(&book()?)?;
        let (name, lock) = self.make(&pools, &image, Some(&instances))?;
        drop(lock);
        if let Err(failed) = warm::fill(&pools, &name, None) {
            let now = pools.of_image(&name)?.and_then(|note| note.instances);
            if now.is_none_or(|now| now.parked.is_empty()) {
                warm::remove_pool(&pools, &name)?;
                return Err(failed);
            }
            let why = failed.to_string();
            standard_error::say(format_args!(
                "kvmlet: not all VMs of the pool are ready: {}",
                why.trim_start_matches("error: ").trim_end()
            ));
        }
        kvmlet_command::print_name(&name, "the pool is there:");
        Ok(0)
    }

    fn run_machines(self) -> Outcome {
        let words = [OsStr::new("kvmlet"), OsStr::new("restore")].into_iter();
        let words = words.chain(self.flags.iter().map(OsString::as_os_str));
        let words = words.chain([OsStr::new("--"), self.file.as_os_str()]);
        let RestoreOnly::Restore(restore) = match Cli::<RestoreOnly>::try_parse_from(words) {
            Ok(Cli { verb, .. }) => verb,
            Err(error) => {
                // Nobody is left to tell when the output is gone.
                let _ = error.print();
                return Ok(kvmlet_command::FAILED);
            }
        };
        restore.check_for_pool()?;
        let file = std::path::absolute(&self.file).map_err(Failed::new)?;
        let pools = Pools::of(&book()?)?;
        let (name, lock) = self.make(&pools, &file, None)?;
        match self.hold(&name, lock, file)?.split_once(' ') {
            Some(("ready", _)) => {}
            Some(("short", why)) => standard_error::say(format_args!(
                "kvmlet: not all VMs of the pool are ready: {}",
                why.trim_end()
            )),
            Some(("empty", why)) => {
                return Err(Failed::in_vain(
                    "no VM of the pool is ready",
                    why.trim_end(),
                ));
            }
            _ => return Err(Failed::new("the pool's process was killed")),
        }
        kvmlet_command::print_name(&name, "the pool is there:");
        Ok(0)
    }

    /// Notes the pool, by the name that was asked for or one that is not taken.
    fn make(
        &self,
        pools: &Pools,
        file: &std::path::Path,
        instances: Option<&PooledInstances>,
    ) -> Result<(Name, PoolLock), Failed> {
        let mut attempt = 0;
        loop {
            let name = match &self.name {
                Some(name) => name.clone(),
                None => Name::generated(attempt).map_err(Failed::new)?,
            };
            attempt += 1;
            let note = PoolNote {
                name: name.clone(),
                file: file.into(),
                size: self.size,
                made: Moment::now(),
                instances: instances.cloned(),
            };
            match pools.make(&note) {
                Ok(lock) => return Ok((name, lock)),
                Err(PoolsError::Taken { .. }) if self.name.is_none() && attempt < 10 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts the process, and returns what it says once it has begun.
    fn hold(self, name: &Name, lock: PoolLock, file: PathBuf) -> Result<String, Failed> {
        let failed = |error: io::Error| Failed::in_vain("the pool cannot be started", error);
        // It lives on, and would hold what whoever called has opened: a lock, or the end of a pipe.
        descriptors::keep_from_programs();
        let mut holder = beside::verbs()?;
        holder
            .args(["pool", "hold", "--size", &self.size.to_string()])
            .arg(name.as_str())
            .arg(file)
            .args(self.flags)
            .stdin(Stdio::from(OwnedFd::from(lock)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut holder = holder.spawn().map_err(failed)?;
        let mut said = String::new();
        let out = holder.stdout.take();
        let out = out.map(|out: ChildStdout| out.take(SAID_BYTES));
        if let Some(mut out) = out {
            out.read_to_string(&mut said).map_err(failed)?;
        }
        if !said.starts_with("ready") && !said.starts_with("short") {
            // It is about to take the pool out of the book, and to end.
            holder.wait().map_err(failed)?;
        }
        Ok(said)
    }
}
