//! Programs that lie beside this one, and are executed for some of its verbs: what they bring along is not in a VM's process.

use crate::Failed;
use kvmlet_sys::users;
use rustix::process::geteuid;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What runs VMs.
pub const KVMLET: &str = "kvmlet";
/// What does with instances, and tells, all that needs no VM of its own.
pub const VERBS: &str = "kvmlet-verbs";

/// The executable of this process.
///
/// # Errors
/// When the host does not tell.
pub fn own() -> Result<PathBuf, Failed> {
    std::env::current_exe()
        .map_err(|error| Failed::in_vain("kvmlet cannot find its own executable", error))
}

/// A command of the program that lies beside this one, and no other of that name.
///
/// # Errors
/// When somebody else may have put it there.
pub fn find(program: &str) -> Result<Command, Failed> {
    let own = own()?;
    let path = own.with_file_name(program);
    let owner = path.symlink_metadata().map(|found| found.uid());
    // Whoever may write to the directory, such as /tmp, could have put it there.
    let trusted = [
        0,
        geteuid().as_raw(),
        own.metadata().map_or(0, |own| own.uid()),
    ];
    if let Ok(owner) = owner
        && !trusted.contains(&owner)
    {
        let by = users::describe(owner);
        let text = format!("cannot run `{}`: it was put there by {by}", path.display());
        return Err(Failed::new(text).help("install `kvmlet` and it in a directory of your own"));
    }
    Ok(Command::new(&path))
}

/// Why a command of such a program did not come to run.
pub fn not_run(program: &str, command: &Command, error: &io::Error) -> Failed {
    let path = Path::new(command.get_program()).display();
    match error.kind() {
        ErrorKind::NotFound => Failed::new(format!("cannot run `{path}`: it is not installed"))
            .help(format!(
                "build it with `cargo build --release --package {}`, and put it there",
                package(program)
            )),
        _ => Failed::new(format!("cannot run `{path}`: {error}")),
    }
}

/// The package that has a program.
fn package(program: &str) -> &str {
    match program {
        KVMLET | VERBS => "kvmlet-cli",
        other => other,
    }
}
