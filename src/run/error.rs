//! What can go wrong between a VM and its host.

use kvmlet_host::net;
use kvmlet_host::shares::{cgroup, ledger};
use kvmlet_host::state::runtime;
use kvmlet_host::walls::jail::{Missing, Wall};
use kvmlet_spec::{Advice, Dialect, Failure, Outcome, Reason, Remedy, Setting, advice};
use kvmlet_sys::{environment, lack, whole_file};
use kvmlet_vmm::vm;
use std::io;
use std::path::PathBuf;

/// Why a VM cannot have what it is to have, or cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The VM itself.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// A network that cannot be set up.
    #[error("cannot give the VM a network interface")]
    Net(#[from] net::Error),
    /// Of an interface that is to be held while its VM is not there.
    #[error(
        "frames for a VM that is not there are kept by a tap of kvmlet's own with one queue, and its interface is another"
    )]
    NotHeld,
    /// Sockets between guest and host that cannot be.
    #[error(transparent)]
    Sockets(#[from] crate::vsock::Error),
    /// There is no place to note what the VM has of this host.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The VM cannot have its share of this host.
    #[error(transparent)]
    Share(#[from] ledger::Error),
    /// The VM's process cannot join its cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The VM's process cannot be confined, or there can be none.
    #[error(transparent)]
    Jail(Missing),
    /// The VM's process cannot be confined as far as it is required to be.
    #[error(transparent)]
    Walls(Missing),
    /// A file that something is to be written to cannot be.
    #[error(transparent)]
    File(#[from] whole_file::Error),
    /// This program cannot start instances: it has not called [`init`](crate::instance::init).
    #[error("this program cannot start VMs: it has not called `kvmlet::init()`")]
    Uninitialised,
    /// This program's allocator cannot do with what it has when the jail is closed.
    #[error(
        "this program's allocator maps memory, which nothing in the jail may: choose `kvmlet::instance::Allocator` for it"
    )]
    Allocator,
    /// A descriptor that is for one VM.
    #[error("the descriptor of {what} {of} was taken by another VM")]
    Given {
        /// Of which kind of device it is.
        what: &'static str,
        /// Its number.
        of: usize,
    },
    /// The supervisor's process was not handed what it needs.
    #[error("the process of an instance was not handed what it needs")]
    Handover(#[source] io::Error),
    /// The supervisor's process has rights that its starter has not, by its file, and cannot do without.
    #[error(transparent)]
    Environment(environment::Error),
    /// An instance that could not be started.
    #[error(transparent)]
    Start(Failure),
    /// What was asked of an instance was not done.
    #[error(transparent)]
    Refused(Failure),
    /// What an instance was asked for has not come.
    #[error("the VM has not told what it was asked for")]
    Unheard,
    /// An instance that has ended was asked for something.
    #[error("the VM has ended")]
    Over,
    /// It was not saved, or goes on since.
    #[error("the VM does not stand still for what was saved")]
    NotSaved,
    /// Nobody hears the power button.
    #[error("no driver of the guest hears the machine's power button")]
    Unlistening,
    /// The balloon cannot be of that size.
    #[error(transparent)]
    Balloon(#[from] kvmlet_vmm::devices::virtio::balloon::Error),
    /// The balloon of a VM without one.
    #[error("the VM has no balloon")]
    NoBalloon,
    /// A device that the VM does not have.
    #[error("the VM has no {what} with the number {place} (they are counted from 0)")]
    NoDevice {
        /// Which kind of device.
        what: &'static str,
        /// Its number.
        place: u8,
    },
    /// A limit for what the host's kernel does.
    #[error("interface {place} is served by the host's kernel (vhost), which keeps to no limits")]
    Unlimited {
        /// Its number.
        place: u8,
    },
    /// Something that a later kvmlet knows.
    #[error("this is not known")]
    Unknown,
    /// An instance's supervisor was killed, or has failed in a way that it could not tell.
    #[error("the supervisor of the VM has ended without telling how its VM has")]
    Gone,
    /// There is no instance where one was looked for.
    #[error("no VM is found by the socket `{}`", .path.display())]
    Unattached {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host gave no pipe, no socket or no process.
    #[error("the host cannot give {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The VM's process cannot let go of what its supervisor keeps.
    #[error("the VM's process cannot leave {what}")]
    Leave {
        /// What is the supervisor's.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The supervisor cannot attend the VM's process any more.
    #[error("the VM's process is lost")]
    Lost(#[source] io::Error),
    /// The VM's process has not told how it has ended.
    #[error("the VM's process has ended with code {code}, and has not told why")]
    Untold {
        /// Its exit code.
        code: u8,
    },
    /// The kernel keeps the VM's process until the request that it waits for is answered, whoever kills it.
    #[error(
        "the VM has ended, but its process {process} has not: it waits for something of this host, most likely for a \
         disk that does not answer"
    )]
    Stuck {
        /// The number of the process.
        process: i32,
    },
    /// Somebody wanted the end before the VM was there.
    #[error("the VM is not wanted any more")]
    Unwanted,
    /// The VM's process took more memory than it may.
    #[error(
        "the VM was killed because it took more memory than its limit of {:.1} MiB",
        *bytes as f64 / f64::from(1 << 20)
    )]
    MemoryLimit {
        /// Its limit.
        bytes: u64,
    },
    /// There was no memory left.
    #[error(
        "the VM was killed because this host, or a cgroup that kvmlet was started in, ran out of memory"
    )]
    OutOfMemory,
    /// Memory that the VM had not changed is gone.
    #[error("the snapshot `{}`, which the VM went on from, was cut short while it ran", path.display())]
    SnapshotCut {
        /// The file.
        path: PathBuf,
    },
    /// Memory that the VM had not changed is another.
    #[error("the snapshot `{}`, which the VM went on from, was written to while it ran", path.display())]
    SnapshotWritten {
        /// The file.
        path: PathBuf,
    },
    /// Who has a VM's memory gives it no more.
    #[error("the program at `{}`, which the VM has its memory from, has ended", path.display())]
    PagerGone {
        /// Where it listened.
        path: PathBuf,
    },
    /// Somebody killed the VM's process.
    #[error("the VM's process was killed by signal {signal}")]
    Killed {
        /// By which signal.
        signal: i32,
        /// How long it may run, where that is limited (RLIMIT_CPU).
        cpu_seconds: Option<u64>,
    },
}

impl Error {
    /// Is this about something that a run by best effort goes on without?
    pub(crate) fn is_dispensable(&self) -> bool {
        match self {
            Error::Runtime(_) => true,
            Error::Share(error) => {
                matches!(error, ledger::Error::Cgroup(_) | ledger::Error::Claims(_))
            }
            Error::Walls(missing) => missing.wall != Wall::Process,
            _ => false,
        }
    }

    /// As another process is told, whose reader has this dialect.
    pub(crate) fn told_in(&self, dialect: Dialect) -> Failure {
        let lack = lack::way_out(self).map(Advice::from);
        let help = lack.or_else(|| self.remedy());
        let mut failure = Failure::of(self);
        let help = help.map(|help| help.in_words_of(dialect));
        failure.help = help.filter(|help| !help.is_empty());
        failure
    }

    /// The outcome of a run that has failed for this, as another process is told.
    pub(crate) fn outcome_in(&self, dialect: Dialect) -> Outcome {
        Outcome::new(Reason::Failed).failure(self.told_in(dialect))
    }

    pub(crate) fn handing(source: impl Into<io::Error>) -> Self {
        Error::Handover(source.into())
    }

    pub(crate) fn host(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |source| Error::Host {
            what,
            source: source.into(),
        }
    }
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        let way_out = self.way_out();
        let without = || advice!("go on without it: {}", Setting::BestEffort);
        let without = self.is_dispensable().then(without);
        Advice::joined(way_out.into_iter().chain(without), "; or ")
    }
}

impl Error {
    fn way_out(&self) -> Option<Advice> {
        Some(match self {
            Error::Vm(error) => return error.remedy(),
            Error::Net(error) => return error.help(),
            Error::Sockets(error) => return error.help(),
            Error::Runtime(error) => error.help().into(),
            Error::Share(error) => return error.help(),
            Error::Cgroup(error) => return error.help(),
            Error::Jail(missing) | Error::Walls(missing) => missing.help().into(),
            Error::File(error) => return error.help().map(Into::into),
            Error::NotHeld => {
                "run it as root, or with CAP_NET_ADMIN, with no more than a published port or `net` alone; or without being suspended \
                 by itself"
                    .into()
            }
            Error::Uninitialised => {
                "call it first thing in `main`: the process of an instance is this program, started anew, and goes no further"
                    .into()
            }
            Error::Unattached { .. } => {
                "start it anew; how it has ended is told by the file that its outcome was to be written to".into()
            }
            Error::Handover(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                "start instances from a program that has no rights by its file (file capabilities, set-user-ID)".into()
            }
            Error::Environment(error) => return error.help().map(Into::into),
            Error::Start(failure) | Error::Refused(failure) => {
                return failure.help.clone().map(Into::into);
            }
            Error::Untold { .. } => "that is a bug of kvmlet, which may have told more of it above".into(),
            Error::Stuck { .. } => {
                "what it holds (memory, disks, its share) is free again when that answers; the next `kvmlet boot` clears \
                 away what is left of it then"
                    .into()
            }
            Error::SnapshotCut { .. } | Error::SnapshotWritten { .. } => {
                "leave the file as it is while VMs go on from it; it may be removed, or replaced by another of its name"
                    .into()
            }
            Error::PagerGone { .. } => {
                "have it run as long as its VMs; restore the VM anew, from the same snapshot"
                    .into()
            }
            Error::MemoryLimit { .. } => {
                "that is guest RAM and what kvmlet may need beside; if it happens again, report it as a bug of kvmlet"
                    .into()
            }
            Error::OutOfMemory => advice!(
                "end other programs|ask for less with {}",
                Setting::Memory
            ),
            Error::Killed {
                signal: libc::SIGXCPU | libc::SIGKILL,
                cpu_seconds: Some(seconds),
            } => format!(
                "its CPU time is limited to {seconds} s, which may be used up: allow it more (`ulimit -t`, or LimitCPU= of \
                 a service)"
            )
            .into(),
            Error::Killed {
                signal: libc::SIGKILL,
                ..
            } => "somebody killed it, or this host ran out of memory, which `dmesg` tells".into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_comes_along() {
        let error = Error::from(vm::Error::Open {
            what: "guest kernel",
            path: "nowhere".into(),
            source: io::Error::from_raw_os_error(2),
        });
        assert_eq!(error.to_string(), "cannot open guest kernel `nowhere`");
        let remedy = error.remedy().unwrap();
        assert_eq!(
            remedy.to_string(),
            "build one with `kernels/build`, or name another with `kernel`"
        );
    }
}
