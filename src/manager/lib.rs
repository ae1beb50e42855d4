//! Many VMs without a daemon: the book of instances, with names, ids and how each has ended; their logs and events; when
//! they are started again, and whether they are well. All of it is files and locks. For kvmlet's own crates: nothing here
//! is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod book;
mod control;
mod ending;
mod error;
pub mod events;
mod filter;
pub mod health;
mod id;
mod instance;
mod locked;
pub mod logs;
mod moment;
mod name;
mod passing;
mod place;
mod pools;
pub mod restart;
mod rotated;
mod sealed;
mod slots;
mod snapshots;
pub mod starting;
pub mod supervision;
mod suspension;
mod templates;
pub mod volumes;
mod watch;
mod whereabouts;
mod working_set;

pub use book::{Book, Damaged, Listing};
pub use control::Control;
pub use ending::Ending;
pub use error::Error;
pub use filter::{Filters, NotAFilter};
pub use id::{InstanceId, NotAnId};
pub use instance::{
    Asked, End, Given, Giving, Instance, Keeper, LogLimits, Mount, Outcome, Owned, Process, Record,
    SUSPENDED, Service, State, Step, Text, Turn, View,
};
pub use moment::{Moment, NotAMoment};
pub use name::{Name, NotAName};
pub use pools::{Holder, PoolLock, PoolNote, PoolView, PooledInstances, Pools, PoolsError, Told};
pub use sealed::Broken;
pub use snapshots::{Kept, Snapshots, SnapshotsLock};
pub use templates::{MOST_TEMPLATE_BYTES, MOST_TEMPLATES, Template, TemplateLock, Templates};
pub use volumes::{LockedVolumes, NotAVolumeName, Note, Users, Volume, VolumeName, Volumes};
pub use whereabouts::Whereabouts;
pub use working_set::{WorkingSet, forget_working_set};
