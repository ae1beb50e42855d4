//! What starting a service costs: as a process, in containers and in microVMs, side by side.
//!
//! [`contestant`] knows how each is started, [`launch`] times one start, [`contest`] interleaves them in rounds,
//! [`sample`] keeps every measurement and [`statistics`] says what they come to. [`Startup`] is the whole, as plain
//! data.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod beside;
mod conditions;
pub mod contest;
pub mod contestant;
pub mod density;
mod effort;
mod error;
pub mod facts;
pub mod io;
pub mod launch;
mod leftovers;
pub mod memory;
pub mod phases;
pub mod report;
mod running;
pub mod sample;
mod startup;
pub mod statistics;
mod trace;
pub mod workshop;

pub use beside::Beside;
pub use conditions::Conditions;
pub use contest::{Plan, Step};
pub use density::Density;
pub use effort::Effort;
pub use error::Error;
pub use io::Io;
pub use startup::{Contender, Startup};
pub use workshop::Programs;
