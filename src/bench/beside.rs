//! Starts while others run.

use super::error::Halt;
use super::launch::Launch;
use super::running::Running;
use super::sample::{Figures, Series};
use super::statistics::Ratio;
use super::workshop::{Programs, Workshop};
use kvmlet_host::shares::descriptors::Reserved;
use kvmlet_sys::signals::Signals;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// A VM that takes longer to start has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// What is open for each: its standard output and what it says.
const DESCRIPTORS: usize = 2;

/// A contestant's starts while others ran.
#[derive(Serialize)]
pub struct Beside {
    /// What they come to.
    pub figures: Figures,
    /// Time to `ready` in terms of that without the others.
    pub to_alone: Option<Ratio>,
    /// Every start.
    pub samples: Series,
}

impl Beside {
    pub(super) fn new(samples: Series, alone: &Series) -> Self {
        Self {
            figures: samples.figures(None),
            to_alone: Ratio::of(&samples.ready_ms(), &alone.ready_ms()),
            samples,
        }
    }
}

/// Idle VMs of kvmlet's: they go with this.
pub(super) struct Neighbours {
    _running: Vec<Running>,
    _descriptors: Reserved,
}

impl Neighbours {
    /// Starts this many, one after the other.
    pub fn start(
        count: usize,
        programs: &Programs,
        workshop: &Workshop,
        signals: &Signals,
    ) -> Result<Self, Halt> {
        let wanted = count * DESCRIPTORS;
        let descriptors =
            Reserved::take(wanted, wanted).map_err(|error| Halt::Failed(error.to_string()))?;
        let guest = programs.guest("ready_stay");
        let words: [&OsStr; 8] = [
            programs.kvmlet.as_os_str(),
            "boot".as_ref(),
            "--jail".as_ref(),
            "--no-rng".as_ref(),
            "--memory".as_ref(),
            "16M".as_ref(),
            "--kernel".as_ref(),
            guest.as_os_str(),
        ];
        let launch = Launch::new(words.map(OsString::from));
        let mut running = Vec::with_capacity(count);
        for number in 0..count {
            let stderr = workshop.path().join(format!("neighbour-{number}"));
            let mut one = Running::start(&launch.argv, &stderr, DEADLINE)?;
            one.wait_ready(signals).map_err(|halt| match halt {
                Halt::Failed(message) => {
                    Halt::Failed(format!("only {number} VMs run beside: {message}"))
                }
                Halt::Interrupted => Halt::Interrupted,
            })?;
            running.push(one);
        }
        Ok(Self {
            _running: running,
            _descriptors: descriptors,
        })
    }
}
