//! Who takes part: each knows whether it is there, how to start the service once, and what is left behind.

mod bundle;
mod clone;
mod cloud_hypervisor;
mod crosvm;
mod crun;
mod ctr;
mod daemon;
mod docker;
mod engine;
mod firecracker;
mod firecracker_snapshot;
mod image;
mod kvmlet;
mod linux;
mod oci;
mod podman;
mod pool;
mod process;
mod qemu;
mod restore;
mod runc;
mod vmm;

use super::error::Error;
use super::launch::Launch;
use super::workshop::{Programs, Workshop};
pub use firecracker_snapshot::{WORD as LOAD, load};
use kvmlet::Condition;
use kvmlet_spec::CpuQuota;
use kvmlet_sys::environment;
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;
use vmm::Vmm;

/// What kind of isolation a contestant gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// None: a child process.
    Process,
    /// Namespaces and cgroups of the host's kernel.
    Container,
    /// A virtual machine whose guest is the service itself, without a kernel: the VMM's own share.
    BareMetal,
    /// A virtual machine with Linux.
    MicroVm,
}

/// Can a contestant take part?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Presence {
    /// It is there.
    Present {
        /// What it says of its version.
        version: String,
    },
    /// It is not installed.
    Absent {
        /// How to install it.
        install: String,
    },
    /// It is there and cannot be used.
    Unusable {
        /// Why.
        message: String,
    },
}

/// What the service does once it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It ends with 0.
    Ends,
    /// It stays until it is killed.
    Stays,
}

/// One way of starting the service.
pub trait Contestant {
    /// A short name, by which it can be asked for.
    fn name(&self) -> &'static str;

    /// One line on what is started.
    fn about(&self) -> &'static str;

    /// What kind of isolation it gives.
    fn kind(&self) -> Kind;

    /// Whether it can take part.
    fn probe(&self) -> Presence;

    /// Makes what all instances share: bundles, images.
    ///
    /// # Errors
    /// A sentence that says why it cannot take part.
    fn prepare(&mut self, _workshop: &Workshop) -> Result<(), String> {
        Ok(())
    }

    /// How to start instance `number`; what only that instance needs is made here, before any clock starts.
    ///
    /// # Errors
    /// A sentence that says why this start failed.
    fn launch(&self, number: usize, service: Service) -> Result<Launch, String>;
}

/// All contestants, in the order of a round.
pub fn all(programs: &Programs) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(process::Process::new(programs)),
        Box::new(kvmlet::Metal::new(programs, true, Condition::None)),
        Box::new(kvmlet::Metal::new(programs, false, Condition::None)),
        Box::new(restore::Restore::new(programs, true)),
        Box::new(restore::Restore::new(programs, false)),
        Box::new(pool::Pool::new(programs, true)),
        Box::new(pool::Pool::new(programs, false)),
        Box::new(clone::Clone::new(programs)),
        Box::new(kvmlet::Linux::new(programs, true)),
        Box::new(kvmlet::Linux::new(programs, false)),
        Box::new(Vmm::metal(programs, firecracker::DIALECT)),
        Box::new(Vmm::linux(programs, firecracker::DIALECT)),
        Box::new(firecracker_snapshot::FirecrackerSnapshot::new()),
        Box::new(Vmm::metal(programs, cloud_hypervisor::DIALECT)),
        Box::new(Vmm::linux(programs, cloud_hypervisor::DIALECT)),
        Box::new(Vmm::metal(programs, qemu::DIALECT)),
        Box::new(Vmm::linux(programs, qemu::DIALECT)),
        Box::new(Vmm::metal(programs, crosvm::DIALECT)),
        Box::new(Vmm::linux(programs, crosvm::DIALECT)),
        Box::new(crun::without_cgroup(programs)),
        Box::new(crun::with_cgroup(programs)),
        Box::new(runc::with_cgroup(programs)),
        Box::new(ctr::engine(programs)),
        Box::new(podman::engine(programs)),
        Box::new(docker::engine(programs)),
    ]
}

/// Is there a Firecracker?
pub(super) fn firecracker_presence() -> Presence {
    presence(&firecracker::DIALECT)
}

/// Is there a Cloud Hypervisor?
pub(super) fn cloud_hypervisor_presence() -> Presence {
    presence(&cloud_hypervisor::DIALECT)
}

/// The command of a Firecracker that is configured by a file.
pub(super) fn firecracker_command(kernel: &Path, file: &Path) -> Vec<OsString> {
    command(&firecracker::DIALECT, kernel, file)
}

/// The command of a Cloud Hypervisor with a bare-metal guest, to which more can be added.
pub(super) fn cloud_hypervisor_command(kernel: &Path, file: &Path) -> Vec<OsString> {
    command(&cloud_hypervisor::DIALECT, kernel, file)
}

fn command(dialect: &vmm::Dialect, kernel: &Path, file: &Path) -> Vec<OsString> {
    let parts = vmm::Parts {
        kernel: kernel.into(),
        linux: None,
        file: file.into(),
        interpreted: false,
    };
    let mut command = vec![OsString::from(dialect.program)];
    command.extend((dialect.arguments)(&parts));
    command
}

fn presence(dialect: &vmm::Dialect) -> Presence {
    probe_program(dialect.program, dialect.version, dialect.install)
}

/// Those who can start with a network and a published port.
pub fn with_network(programs: &Programs) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(kvmlet::Metal::new(programs, true, Condition::Net)),
        Box::new(kvmlet::Metal::new(programs, false, Condition::Net)),
    ]
}

/// Those who can start with a share of CPUs.
pub fn with_share(programs: &Programs, quota: CpuQuota) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(kvmlet::Metal::new(programs, true, Condition::Share(quota))),
        Box::new(kvmlet::Metal::new(programs, false, Condition::Share(quota))),
        Box::new(crun::with_share(programs, quota)),
        Box::new(runc::with_share(programs, quota)),
    ]
}

/// Those of all contestants whose names are given, in their order; all if none is given. The bare process is what
/// others are compared with, and always among them.
///
/// # Errors
/// When there is no contestant of such a name.
pub fn named(programs: &Programs, names: &[String]) -> Result<Vec<Box<dyn Contestant>>, Error> {
    let all = all(programs);
    let known: Vec<&str> = all.iter().map(|contestant| contestant.name()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::UnknownContestant {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    let wanted = |contestant: &dyn Contestant| {
        names.is_empty()
            || contestant.kind() == Kind::Process
            || names.iter().any(|name| name == contestant.name())
    };
    Ok(all
        .into_iter()
        .filter(|contestant| wanted(contestant.as_ref()))
        .collect())
}

/// Looks for a program by the first line of what it says of its version.
fn probe_program(program: &str, version: &str, install: &str) -> Presence {
    // One that does not answer must not keep all others.
    match daemon::briefly(&[program.into(), version.into()]) {
        Ok(text) => Presence::Present {
            version: text.lines().next().unwrap_or_default().trim().into(),
        },
        Err(message) if find_in_path(program) => Presence::Unusable { message },
        Err(_) => Presence::Absent {
            install: install.into(),
        },
    }
}

fn find_in_path(program: &str) -> bool {
    let path = environment::variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Programs {
        Programs {
            kvmlet: "kvmlet".into(),
            kernel: None,
            built: "/nowhere".into(),
        }
    }

    #[test]
    fn names_are_unique_and_select() {
        let them = programs();
        let mut all = all(&them);
        all.extend(with_network(&them));
        all.extend(with_share(&them, "0.02".parse().unwrap()));
        let names: std::collections::BTreeSet<_> =
            all.iter().map(|contestant| contestant.name()).collect();
        assert_eq!(names.len(), all.len());
        let chosen = named(&programs(), &["runc".into()]).unwrap();
        let chosen: Vec<_> = chosen.iter().map(|contestant| contestant.name()).collect();
        assert_eq!(chosen, ["process", "runc"]);
        let error = named(&programs(), &["runcc".into()])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("`runcc`") && error.contains("crun"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_comes_with_the_way_to_install_it() {
        let presence = probe_program("kvmlet-no-such-program", "--version", "apt-get install it");
        assert_eq!(
            presence,
            Presence::Absent {
                install: "apt-get install it".into()
            }
        );
    }

    #[test]
    fn a_program_that_fails_is_there_and_unusable() {
        assert!(matches!(
            probe_program("false", "--version", ""),
            Presence::Unusable { .. }
        ));
    }
}
