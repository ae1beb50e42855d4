//! What can go wrong with the book.

use crate::name::{Name, NotAName};
use crate::sealed::Broken;
use crate::{InstanceId, State, VolumeName};
use kvmlet_control::ConnectionError;
use kvmlet_control::agent::AgentError;
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::interrupt::Interrupted;
use kvmlet_sys::lock::{Holder, PATIENCE};
use kvmlet_sys::trusted;
use std::io;
use std::path::{Path, PathBuf};

/// Why something cannot be done with instances.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no place for the book, or not one that can be trusted.
    #[error(transparent)]
    Place(#[from] trusted::Error),
    /// This user has no directory of its own.
    #[error("there is no place for the book of instances: this user has no home directory")]
    Homeless,
    /// A file of the book cannot be used.
    #[error("cannot use `{}`, a part of the book of instances", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the book is not what was written.
    #[error("`{}` cannot be believed", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Broken,
    },
    /// Somebody keeps all others from writing into the book.
    #[error(
        "{} has held the lock `{}` for {} s",
        holder.as_ref().map_or("a process".into(), Holder::to_string), path.display(), PATIENCE.limit.as_secs()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who has it, where that can be told.
        holder: Option<Holder>,
    },
    /// It was told to give up while it waited.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Text that is not a name.
    #[error(transparent)]
    Name(#[from] NotAName),
    /// A name that another instance has.
    #[error("the name `{name}` is taken by instance {}", holder.short())]
    NameTaken {
        /// The name.
        name: Name,
        /// Who has it.
        holder: InstanceId,
    },
    /// Nothing is called that.
    #[error("there is no instance `{}`", reference.escape_debug())]
    NotFound {
        /// What the user named.
        reference: String,
    },
    /// More than one id begins like that.
    #[error("`{reference}` is the beginning of {count} ids")]
    Ambiguous {
        /// What the user named.
        reference: String,
        /// Of how many.
        count: usize,
    },
    /// It runs, or is about to, or somebody does something else with it.
    #[error("instance `{called}` is {}", state.in_use())]
    InUse {
        /// Its name, or the beginning of its id.
        called: String,
        /// What it is doing.
        state: State,
    },
    /// Only one that runs can do it.
    #[error("instance `{called}` is not running: it {}", state.instead())]
    NotRunning {
        /// Its name, or the beginning of its id.
        called: String,
        /// What it is doing.
        state: State,
    },
    /// It does what it was to do.
    #[error("instance `{called}` is {state} already")]
    Already {
        /// Its name, or the beginning of its id.
        called: String,
        /// What it is doing.
        state: State,
    },
    /// Its VM's supervisor cannot be asked, or says no.
    #[error("instance `{called}` does not do it")]
    Control {
        /// Its name, or the beginning of its id.
        called: String,
        /// Why.
        #[source]
        source: ConnectionError,
    },
    /// Its supervisor cannot do it with its service.
    #[error("instance `{called}` cannot {message}")]
    Cannot {
        /// Its name, or the beginning of its id.
        called: String,
        /// What, and why not.
        message: String,
    },
    /// Its supervisor does not answer.
    #[error("instance `{called}` cannot be asked")]
    Unasked {
        /// Its name, or the beginning of its id.
        called: String,
        /// Why.
        #[source]
        source: AgentError,
    },
    /// Its supervisor is in a PID namespace that this process does not see, and cannot be asked otherwise for now.
    #[error(
        "the process that attends instance `{called}` is in another PID namespace, or is ending"
    )]
    Elsewhere {
        /// Its name, or the beginning of its id.
        called: String,
    },
    /// Its supervisor cannot be sent a signal.
    #[error("instance `{called}` cannot be told")]
    Untold {
        /// Its name, or the beginning of its id.
        called: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No volume is called that.
    #[error("there is no volume `{name}`")]
    NoVolume {
        /// What the user named.
        name: VolumeName,
    },
    /// No snapshot is noted under an id that begins so.
    #[error("there is no snapshot `{}`", reference.escape_debug())]
    NoSnapshot {
        /// What the user named.
        reference: String,
    },
    /// Instances have it mounted, whether they run or not.
    #[error("volume `{name}` is in use by {called}")]
    VolumeUsed {
        /// The volume.
        name: VolumeName,
        /// The names of the instances, or the beginnings of their ids.
        called: String,
    },
    /// An instance that runs has it, and does not share it with one that writes, or does so itself.
    #[error(
        "volume `{name}` is in use by instance `{called}`, which {} it",
        if *reads { "reads" } else { "writes to" }
    )]
    VolumeTaken {
        /// The volume.
        name: VolumeName,
        /// The name of the other instance, or the beginning of its id.
        called: String,
        /// What that does with it.
        reads: bool,
    },
    /// Its guests would lose what is at its end.
    #[error("volume `{name}` has {bytes} bytes, and volumes do not shrink")]
    VolumeShrinks {
        /// The volume.
        name: VolumeName,
        /// How big it is, in bytes.
        bytes: u64,
    },
    /// It runs, but not from this book.
    #[error(
        "instance `{called}` runs as process {pid}, which belongs to another copy of this book"
    )]
    RunsElsewhere {
        /// Its name, or the beginning of its id.
        called: String,
        /// Whose supervisor.
        pid: u32,
    },
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn broken(path: &Path) -> impl Fn(Broken) -> Self + '_ {
        move |source| Self::Broken {
            path: path.into(),
            source,
        }
    }
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Place(error) => Some(error.help().into()),
            Self::Homeless => {
                Some("set HOME, or XDG_STATE_HOME, to a directory of your own".into())
            }
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("make room on that file system".into())
                }
                _ => None,
            },
            Self::Broken { source, .. } => Some(match source {
                Broken::Unknown(_) => "use the newer kvmlet that has written it".into(),
                _ => "remove the instance: nothing else of it is lost but what was asked".into(),
            }),
            Self::Locked { path, holder } => Some(match holder {
                Some(holder) => {
                    format!("if it does not go on, end it: `kill {}`", holder.pid).into()
                }
                None => format!("`fuser {}` tells which one", path.display()).into(),
            }),
            Self::Interrupted(_)
            | Self::Name(_)
            | Self::Already { .. }
            | Self::Cannot { .. }
            | Self::Unasked { .. }
            | Self::Untold { .. } => None,
            Self::Elsewhere { .. } => {
                Some("try again when it runs, or there where it was started".into())
            }
            Self::NotFound { .. } => Some(
                "`kvmlet ps -a` lists all that there are; each user has a book of its own".into(),
            ),
            Self::NameTaken { .. } => {
                Some("take another one, or remove or rename that instance".into())
            }
            Self::Ambiguous { .. } => Some("say more of it".into()),
            Self::NotRunning { state, .. } => match state {
                State::Restarting => Some("wait until it runs".into()),
                State::Suspended => Some("resume it first".into()),
                _ => Some("start it first".into()),
            },
            Self::Control { source, .. } => match source {
                ConnectionError::Refused(failure) => failure.help.clone().map(Into::into),
                _ => None,
            },
            Self::InUse { .. } => Some("stop it first".into()),
            Self::NoSnapshot { .. } => {
                Some("`kvmlet snapshot ls` lists those that there are; one in a file is named by that (`./FILE`)".into())
            }
            Self::NoVolume { .. } => Some("`kvmlet volume ls` lists those that there are".into()),
            Self::VolumeUsed { .. } => {
                Some("remove those first (`kvmlet rm`); what has mounted a volume keeps it".into())
            }
            Self::VolumeTaken { called, .. } => Some(
                format!("stop that first (`kvmlet stop {called}`): a volume has one writer, or readers only (`:ro`)").into(),
            ),
            Self::VolumeShrinks { .. } => {
                Some("make a smaller one, and copy what is in it".into())
            }
            Self::RunsElsewhere { pid, .. } => {
                Some(format!("end it there first, or else `kill {pid}`").into())
            }
        }
    }
}
