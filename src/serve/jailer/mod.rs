//! Firecracker's jailer: its command line, and the directory that it makes the root of `kvmlet firecracker`.
//!
//! All of it is done before the program runs that reads what clients send, which is executed as another user, with an
//! environment and descriptors of its own. The VM's process has kvmlet's walls around it in there, as it has everywhere.

mod cgroup;
mod flags;
mod made;
mod mounts;
mod process;
mod root;

use crate::firecracker::VERSION;
use cgroup::Seats;
use flags::{Flags, Wanted};
use kvmlet_sys::{environment, regular, standard_error};
use made::Made;
use process::Started;
use root::Programs;
use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;

/// Why there is no jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl Refused {
    /// Something that the host does not do.
    pub fn by_host(what: impl Display, error: impl Into<io::Error>) -> Self {
        Self(format!("{what}: {}", error.into()))
    }
}

/// The exit code where nothing came of it.
const FAILED: u8 = 1;

/// Runs a command line. Returns the exit code where this process does not go on as another program.
pub fn run(words: &[OsString]) -> u8 {
    // Whoever starts it may have left something open.
    process::close_descriptors();
    let done = match flags::read(words) {
        Ok(Wanted::Print(text)) => {
            kvmlet_command::print(text).map_err(|failed| Refused(failed.first_line()))
        }
        Ok(Wanted::Jail(flags)) => jail(&flags),
        Err(why) => Err(Refused(why)),
    };
    let code = match done {
        Ok(()) => 0,
        Err(Refused(why)) => {
            standard_error::say(format_args!("error: {why}"));
            FAILED
        }
    };
    standard_error::finish();
    code
}

/// Goes on as the program, in its jail; returns in a process that has started another one for that.
fn jail(flags: &Flags) -> Result<(), Refused> {
    let started = Started::now();
    if !rustix::process::geteuid().is_root() || environment::is_privileged_by_file() {
        return Err(Refused(
            "the jailer has to be started by root, who it is no more in the jail".into(),
        ));
    }
    let programs = Programs::find(flags)?;
    let mut made = Made::default();
    let namespace = match &flags.netns {
        Some(path) => Some(
            regular::open(path)
                .map_err(|error| Refused::by_host(format!("--netns {}", path.display()), error))?,
        ),
        None => None,
    };
    let seats = Seats::prepare(flags, &mut made)?;
    root::part_from_host()?;
    let root = root::open(flags, &mut made)?;
    if let Some(namespace) = namespace {
        process::join_network(&namespace)?;
    }
    let root = root::enter(&root)?;
    let ended = go_on(flags, &root, programs, seats, &started, &mut made);
    match &ended {
        Ok(()) => made.keep(),
        Err(_) => root::clear(flags),
    }
    ended
}

/// What is done inside. Nothing is returned where another process has it all from then on.
fn go_on(
    flags: &Flags,
    root: &OwnedFd,
    programs: Programs,
    seats: Seats,
    started: &Started,
    made: &mut Made,
) -> Result<(), Refused> {
    root::furnish(root, flags, programs, made)?;
    if !process::go_on_elsewhere(flags, root, made)? {
        return Ok(());
    }
    root::mount_processes(root, made)?;
    seats.take()?;
    process::limit(&flags.limits)?;
    process::become_user(flags.uid, flags.gid)?;
    let error = process::execute(flags, started);
    let directory = flags.directory();
    let what = format!(
        "the program cannot be executed in `{}`",
        directory.display()
    );
    Err(Refused::by_host(what, error))
}

fn version() -> String {
    format!(
        "Jailer v{VERSION}\n\nkvmlet {}\n",
        env!("CARGO_PKG_VERSION")
    )
}
