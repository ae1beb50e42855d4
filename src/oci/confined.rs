//! The walls of the process that talks to registries: TLS and HTTP are done where there is nothing to gain but the store
//! of images, which checks what it is given. What is needed besides, passwords and certificates, is read before.

use crate::unpack;
use kvmlet_command::Outcome;
use kvmlet_host::walls::jail::Allowed;
use kvmlet_host::walls::rights;
use kvmlet_image::store::Store;
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::process::{self, Ended, Fork, fork};
use kvmlet_sys::standard_error;
use std::io;
use std::path::Path;

/// The exit code of a verb that is not done, as docker's.
pub const NOT_DONE: u8 = 1;

/// Why nobody is talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It would not be safe.
    #[error("the process that talks to registries cannot be walled in")]
    Walls(#[source] io::Error),
    /// There is no such process, or it cannot be waited for.
    #[error("there is no process that talks to registries")]
    Process(#[source] io::Error),
    /// Somebody has ended it.
    #[error("the process that talks to registries was ended by signal {0}")]
    Killed(i32),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        None
    }
}

/// How hosts are found by their names.
const NAMES: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];
/// Where libraries are, for a build of this program that has any.
const LIBRARIES: [&str; 7] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
];

/// Leaves this process, which has one thread yet, the way to registries, a store, and itself as a program.
///
/// # Errors
/// When the walls cannot be built.
pub fn confine(store: Option<&Store>) -> Result<(), Error> {
    let mut paths: Vec<_> = NAMES.map(|path| (Path::new(path), Allowed::Read)).into();
    paths.push((Path::new(unpack::PROGRAM), Allowed::Execute));
    paths.extend(store.map(|store| (store.path(), Allowed::Change)));
    if cfg!(not(target_feature = "crt-static")) {
        paths.extend(LIBRARIES.map(|path| (Path::new(path), Allowed::Execute)));
    }
    rights::fetch(&paths).map_err(Error::Walls)
}

/// Does something behind these walls in a process of its own, for a verb that goes on afterwards; tells whether it is done.
/// Why not, that process has told.
///
/// # Errors
/// When there can be no such process, or somebody ends it.
pub fn apart(store: Option<&Store>, act: impl FnOnce() -> Outcome) -> Result<bool, Error> {
    let child = match fork(0, None).map_err(Error::Process)? {
        Fork::Parent(child) => child,
        Fork::Child(lifeline) => {
            let walls = confine(store).and_then(|()| lifeline.hold().map_err(Error::Process));
            let done = walls.map_err(Into::into).and_then(|()| act());
            let code = done.unwrap_or_else(|failed| {
                failed.print();
                NOT_DONE
            });
            standard_error::finish();
            process::end(code)
        }
    };
    match child.wait().map_err(Error::Process)? {
        Ended::Exited(code) => Ok(code == 0),
        Ended::Killed(signal) => Err(Error::Killed(signal)),
    }
}
