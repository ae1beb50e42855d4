//! What the caller's environment may decide.
//!
//! A program with more rights than whoever runs it (file capabilities, set-user-ID) is told so by the kernel:
//! AT_SECURE in getauxval(3). Then the environment is the caller's attempt to steer it, as glibc has it for its own
//! variables (secure_getenv(3)): nothing in it counts.

use super::users;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::OnceLock;

/// All that file capabilities may give to kvmlet: interfaces, and ports below 1024.
const GRANTED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_BIND_SERVICE);

/// Where things are kept below a home directory, and the variables that say so (XDG Base Directory Specification).
const PLACES: [(&str, &str); 3] = [
    ("XDG_CACHE_HOME", ".cache"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
];
/// Where sockets and locks are has no place below it.
const RUNTIME: &str = "XDG_RUNTIME_DIR";

/// What was in the environment before it was cleared.
static CALLERS: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// Why this process must not go on with the rights that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Whoever may run the file would open every file as its owner.
    #[error("kvmlet is installed to run as another user (set-user-ID or set-group-ID)")]
    SetId,
    /// More than is needed was given, and could not be given up.
    #[error("the capabilities of the file `kvmlet` cannot be limited to those that it needs")]
    Capabilities,
}

impl Error {
    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::SetId => {
                "it opens disks, kernels and other files for its caller: `sudo chmod u-s,g-s` its file; for network \
                 interfaces `sudo setcap cap_net_admin+ep` does"
            }
            Self::Capabilities => "give it no others: `sudo setcap cap_net_admin+ep` its file",
        };
        Some(help.into())
    }
}

/// Has this process rights that whoever started it has not?
pub fn is_privileged_by_file() -> bool {
    // SAFETY: reads what the kernel has put above the stack.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// A variable that decides what this process does; none where the caller must not decide.
#[allow(clippy::disallowed_methods)] // the one place
pub fn variable(name: &str) -> Option<OsString> {
    (!is_privileged_by_file()).then(|| std::env::var_os(name))?
}

/// A variable that is only data, to be passed on to the caller's own service.
#[allow(clippy::disallowed_methods)] // it decides nothing
pub fn data(name: impl AsRef<OsStr>) -> Option<OsString> {
    let name = name.as_ref();
    match CALLERS.get() {
        None => std::env::var_os(name),
        Some(all) => {
            let mut all = all.iter();
            all.find_map(|(key, value)| (key == name).then(|| value.clone()))
        }
    }
}

/// Where this user's files are: `$HOME`, or what /etc/passwd says where the environment does not count.
pub fn home() -> Option<PathBuf> {
    match is_privileged_by_file() {
        false => variable("HOME").map(PathBuf::from),
        true => users::home(rustix::process::getuid().as_raw()),
    }
}

/// Makes a program that has rights by its file safe to be run by anybody: no variable reaches a library or another
/// program, and no capability is kept that is not needed. Does nothing for all others. There is one thread yet.
///
/// # Errors
/// When it is installed in a way that cannot be made safe.
pub fn disarm() -> Result<(), Error> {
    if !is_privileged_by_file() {
        return Ok(());
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    if user != rustix::process::geteuid() || group != rustix::process::getegid() {
        return Err(Error::SetId);
    }
    #[allow(clippy::disallowed_methods)] // kept as data
    CALLERS.get_or_init(|| std::env::vars_os().collect());
    // SAFETY: there is one thread, so nobody reads the environment meanwhile.
    unsafe { libc::clearenv() };
    // Root has its capabilities by itself; here a security module has asked for care.
    match user.is_root() {
        true => Ok(()),
        false => limit_capabilities().map_err(|_| Error::Capabilities),
    }
}

fn limit_capabilities() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.permitted &= GRANTED;
    sets.effective &= GRANTED;
    sets.inheritable &= GRANTED;
    set_capabilities(None, sets)
}

/// Does something with the rights of the caller alone: what belongs to other users is refused by the kernel.
///
/// # Errors
/// When the rights cannot be laid down.
pub fn as_caller<T>(act: impl FnOnce() -> T) -> std::io::Result<T> {
    if !is_privileged_by_file() || rustix::process::geteuid().is_root() {
        return Ok(act());
    }
    let sets = capabilities(None)?;
    let mut caller = sets;
    caller.effective = CapabilitySet::empty();
    set_capabilities(None, caller)?;
    let done = act();
    set_capabilities(None, sets)?;
    Ok(done)
}

/// The variables that this process does not have because of what the file gave, for a program that it starts and that gets
/// none of it (capabilities(7): what is not inheritable ends with execve).
pub fn of_caller() -> Vec<(OsString, OsString)> {
    match is_privileged_by_file() && !rustix::process::geteuid().is_root() {
        true => of_callers_program(),
        false => Vec::new(),
    }
}

/// Gives up what the file gave, for work that runs other programs. Returns the variables that those may be given and
/// this process does not have any more: without its rights, they are the caller's own programs.
///
/// # Errors
/// When the kernel refuses.
pub fn drop_file_capabilities() -> Result<Vec<(OsString, OsString)>, Error> {
    // Root has its capabilities by itself, and what a security module gave cannot be dropped.
    if !is_privileged_by_file() || rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let none = CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).map_err(|_| Error::Capabilities)?;
    Ok(of_callers_program())
}

/// The caller's variables; but a program of kvmlet's own finds what is kept where this one has it, which does not ask them.
fn of_callers_program() -> Vec<(OsString, OsString)> {
    let of_caller = CALLERS.get().into_iter().flatten();
    let is_place = |name: &OsStr| name == RUNTIME || PLACES.iter().any(|(place, _)| name == *place);
    let of_caller = of_caller.filter(|(name, _)| !is_place(name)).cloned();
    let home = home();
    let places = PLACES.iter().filter_map(|(name, below)| {
        let place = home.as_ref()?.join(below);
        Some(((*name).into(), place.into()))
    });
    of_caller.chain(places).collect()
}
