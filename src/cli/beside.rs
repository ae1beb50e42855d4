//! Programs that lie beside this one, and are executed for some of its verbs: what they bring along is not in a VM's process.

use super::{Failed, Outcome};
pub(super) use kvmlet_command::beside::{KVMLET, VERBS};
use kvmlet_command::beside::{find, not_run, own};
use kvmlet_sys::environment;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// What other makers' programs drive VMs by.
pub(super) const SERVE: &str = "kvmlet-serve";

/// The words behind `kvmlet help`, if that is what is asked for.
pub(super) fn help() -> Option<Vec<OsString>> {
    let mut words = kvmlet_sys::arguments::all().skip(1);
    (words.next()? == "help").then(|| words.collect())
}

/// Goes on as the program that lies beside this one.
pub(super) fn become_program(program: &str, arguments: impl Iterator<Item = OsString>) -> Outcome {
    // Rights that the file gives are for VMs. Without them it is the caller who decides what the program does.
    let variables = environment::drop_file_capabilities().map_err(Failed::of_environment)?;
    let mut command = find(program)?;
    command.args(arguments).envs(variables);
    let error = command.exec();
    Err(not_run(program, &command, &error))
}

/// Runs the program that lies beside this one, with its output behind this one's errors, and returns how it has ended.
pub(super) fn run_program(program: &str, arguments: &[&str]) -> Result<ExitStatus, Failed> {
    let mut command = find(program)?;
    // It does not have the rights that this one's file gives, so it may have what its caller says.
    command.args(arguments).envs(environment::of_caller());
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status();
    status.map_err(|error| not_run(program, &command, &error))
}

/// Is this the program that runs VMs?
pub(super) fn is_machine() -> Result<bool, Failed> {
    Ok(!own()?.ends_with(VERBS))
}

/// A command of what runs VMs: this program, whatever it is called, unless it is the other one.
pub(super) fn machine() -> Result<Command, Failed> {
    let own = own()?;
    match own.ends_with(VERBS) {
        true => find(KVMLET),
        false => Ok(Command::new(own)),
    }
}

/// A command of the program that does what needs no VM of its own.
pub(super) fn verbs() -> Result<Command, Failed> {
    let mut command = find(VERBS)?;
    command.envs(environment::of_caller());
    Ok(command)
}
