//! What a supervisor runs.

use super::ChannelSpec;
use kvmlet_sys::wait::Slot;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Instant;

/// What a supervisor is given to run.
pub struct Program<'a> {
    /// Makes the command that runs the VM in the foreground: its standard output is the guest's, its standard error its
    /// own. What it is given in standard input is `input`.
    pub command: &'a dyn Fn() -> Command,
    /// Makes that of the first start, where the VM goes on from a snapshot.
    pub first: Option<&'a dyn Fn() -> Command>,
    /// That one is the instance itself, which was suspended: its VM is built, and stands still until it is noted that it goes on.
    pub resumes: bool,
    /// What it reads: the configuration.
    pub input: &'a [u8],
    /// Makes what does the same as that command the first time, in a process that was forked for it: it spares a start the
    /// execution of a program, and what that would have to read again. Not where it goes on from a snapshot.
    pub here: Option<&'a dyn Fn() -> Here>,
    /// The argument by which it is told the number of a descriptor, on which it says that the VM runs. Without one it is
    /// taken to run as soon as it is started.
    pub ready: Option<&'a str>,
    /// What its guest is told, and tells, if it does. The service runs when the guest tells so, and the program's standard
    /// output is its console's.
    pub channel: Option<ChannelSpec<'a>>,
    /// The argument by which it is told the number of another one, on which it serves the instance's control socket.
    pub control: Option<&'a str>,
    /// Is called when the service runs, or is healthy if that is asked for, for the first time.
    pub well: &'a dyn Fn(),
    /// Makes what is held beside it where it may be suspended by itself. Each start is a fork of the process that holds it then.
    pub holds: Option<&'a dyn Fn() -> Box<dyn Holds>>,
    /// Takes from the thread that calls it what it has no use for, when it starts no program any more.
    pub confine: fn() -> io::Result<()>,
}

/// What a VM has of its host while it is in its file, in the process that starts it: its networks.
pub trait Holds {
    /// It is about to be needed. Why there is none of it, the program that is started tells.
    fn prepare(&mut self, begin: Begin);
    /// Runs the VM to its end, in a process that was forked for it, and returns the exit code of that.
    fn run(&mut self, handed: Handed, begin: Begin) -> u8;
    /// What is waited for on its behalf.
    fn slots(&self) -> Vec<Slot<'_>>;
    /// When there is something to do without any of that.
    fn due(&self) -> Option<Instant>;
    /// Does what there is to do now, and says what is missing from now on.
    fn turn(&mut self) -> Vec<String>;
    /// The VM is not there (true), or is about to be again.
    ///
    /// # Errors
    /// What the host says.
    fn doze(&mut self, dozes: bool) -> io::Result<()>;
    /// That somebody wants something of a VM that is not there.
    fn wanted(&self) -> Vec<Slot<'_>>;
    /// The command that suspends it, as its user would.
    fn suspends(&self) -> Command;
    /// Lets go of it.
    fn end(self: Box<Self>);
}

/// How a VM begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It boots.
    Boots,
    /// It goes on from the snapshot that the instance was made of.
    Restores,
    /// It goes on where it was suspended.
    Resumes,
}

/// Runs the VM to its end, and returns the exit code of the process.
pub type Here = Box<dyn FnOnce(Handed) -> u8>;

/// What a program is handed that is run in a forked process: what its command is told the numbers of.
#[derive(Debug)]
pub struct Handed {
    /// Where it says that the VM runs.
    pub ready: OwnedFd,
    /// Where it serves the instance's control socket, if it does.
    pub control: Option<OwnedFd>,
}
