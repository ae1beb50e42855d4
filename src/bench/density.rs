//! How many instances fit, what each keeps of memory, and how fast they start when several do at once.

use super::contest::{Contest, Entrant, Step};
use super::contestant::{Kind, Presence, Service, named};
use super::error::{Error, Halt};
use super::facts::HostFacts;
use super::launch::Launch;
use super::memory::{self, GUEST_BYTES, Memory};
use super::running::Running;
use super::startup::{ENDING, command};
use super::workshop::{Programs, Workshop, own_mounts};
use kvmlet_command::beside::VERBS;
use kvmlet_host::available_memory_bytes;
use kvmlet_sys::signals::Signals;
use kvmlet_sys::thread::lock;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// This much of the host's memory stays free.
const RESERVE: f64 = 0.2;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Most instances at once.
    pub limit: usize,
    /// How many start at the same time.
    pub parallel: usize,
    /// Time for each contestant: a doubling that would take longer is left out.
    pub budget: Duration,
    /// A start that takes longer has failed.
    pub deadline: Duration,
}

impl Default for Plan {
    /// 64 instances, one start per CPU at a time, a minute for each contestant, 2 minutes for a start.
    fn default() -> Self {
        Self {
            limit: 64,
            parallel: std::thread::available_parallelism().map_or(1, usize::from),
            budget: Duration::from_secs(60),
            deadline: Duration::from_secs(120),
        }
    }
}

/// What `kvmlet bench density` has found.
#[derive(Serialize)]
pub struct Density {
    /// `density`.
    pub benchmark: &'static str,
    /// kvmlet's version.
    pub kvmlet: &'static str,
    /// What the figures are, for whoever reads them.
    pub method: &'static str,
    /// How many start at the same time.
    pub parallel: usize,
    /// The host.
    pub host: HostFacts,
    /// What makes the figures special, or doubtful.
    pub warnings: Vec<String>,
    /// All contestants, those that are absent included.
    pub contestants: Vec<Crowd>,
}

/// One contestant and its instances.
#[derive(Serialize)]
pub struct Crowd {
    /// Its short name.
    pub name: &'static str,
    /// What is started.
    pub about: &'static str,
    /// What kind of isolation it gives.
    pub kind: Kind,
    /// Whether it took part.
    pub presence: Presence,
    /// The exact command of its last start.
    pub command: Vec<String>,
    /// Each doubling.
    pub levels: Vec<Level>,
    /// Why there are not more.
    pub stopped: String,
}

/// This many instances at once.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Level {
    /// Instances that ran.
    pub instances: usize,
    /// Instances that were started to get from the level before to this one.
    pub started: usize,
    /// Starts per second, from the first spawn to the last `ready`.
    pub starts_per_second: f64,
    /// Proportional set size for each instance, in MiB.
    pub each: Memory,
    /// What the host's available memory (MemAvailable) fell by for each instance, in MiB: with what the kernel
    /// keeps for it. Whatever else runs on the host shows in it.
    pub host_each: f64,
}

const METHOD: &str = "The service stays once it is ready. Instances are added until there are 1, 2, 4, 8 and so on, and as many as were asked for; after each \
    doubling the proportional set sizes (a page that n processes share counts 1/n) of all processes of all instances are \
    added up, launchers that stay included, daemons that serve all containers not. What the kernel keeps for an instance \
    is in no process; it shows in what the host's available memory fell by.";

impl Density {
    /// Runs the benchmark with the contestants of these names, or all, and tells `watch` each step.
    ///
    /// # Errors
    /// When there is nothing to start or no place to work in, and when a signal ends it.
    pub fn measure(
        plan: Plan,
        programs: &Programs,
        names: &[String],
        watch: &mut dyn FnMut(Step<'_>),
    ) -> Result<Self, Error> {
        programs.check()?;
        let workshop = Workshop::open()?;
        let contestants = named(&apart(programs, &workshop)?, names)?;
        let host = HostFacts::read();
        let mut warnings = host.warnings();
        warnings.extend(own_mounts());
        // Processes that lose their parent come to this one: they belong to an instance.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let signals = Signals::take(&ENDING).map_err(Error::Signals)?;
        let entrants = Contest::enter(contestants, &workshop);
        let mut crowds = Vec::new();
        for entrant in entrants {
            let crowd = Crowd::grow(entrant, plan, &workshop, &signals, watch);
            crowds.push(crowd.map_err(|_| Error::interrupted(&signals))?);
        }
        Ok(Self {
            benchmark: "density",
            kvmlet: env!("CARGO_PKG_VERSION"),
            method: METHOD,
            parallel: plan.parallel,
            host,
            warnings,
            contestants: crowds,
        })
    }
}

/// The programs with a copy of kvmlet, and of what it executes for its verbs: the benchmark runs from the same file, and would
/// share its pages.
fn apart(programs: &Programs, workshop: &Workshop) -> Result<Programs, Error> {
    let kvmlet = workshop.path().join("kvmlet");
    let copy = |from: &Path, path: PathBuf| match std::fs::copy(from, &path) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Directory { path, source }),
    };
    copy(&programs.kvmlet, kvmlet.clone())?;
    let verbs = programs.kvmlet.with_file_name(VERBS);
    // Where it is not, they say so themselves.
    if verbs.exists() {
        copy(&verbs, workshop.path().join(VERBS))?;
    }
    Ok(Programs {
        kvmlet,
        ..programs.clone()
    })
}

impl Crowd {
    fn grow(
        entrant: Entrant,
        plan: Plan,
        workshop: &Workshop,
        signals: &Signals,
        watch: &mut dyn FnMut(Step<'_>),
    ) -> Result<Self, Halt> {
        let one = &entrant.contestant;
        let mut crowd = Self {
            name: one.name(),
            about: one.about(),
            kind: one.kind(),
            presence: entrant.presence.clone(),
            command: Vec::new(),
            levels: Vec::new(),
            stopped: String::new(),
        };
        if !matches!(crowd.presence, Presence::Present { .. }) {
            return Ok(crowd);
        }
        let tag = memory::tag();
        let mut instances = Instances::default();
        let before = memory::settled_bytes();
        let begun = Instant::now();
        let mut next = 1;
        crowd.stopped = loop {
            watch(Step {
                stage: "density",
                round: next,
                of: plan.limit,
                name: crowd.name,
            });
            let batch = Batch {
                first: instances.all.len(),
                count: next - instances.all.len(),
                plan,
                workshop,
                signals,
            };
            let started = Instant::now();
            batch.start(&entrant, &mut instances)?;
            let seconds = started.elapsed().as_secs_f64();
            crowd.command = command(instances.all.last().map(|instance| &instance.launch));
            if let Some(error) = instances.failure.take() {
                break error;
            }
            let n = next as f64;
            let kept = before.saturating_sub(available_memory_bytes()) as f64;
            crowd.levels.push(Level {
                instances: next,
                started: batch.count,
                starts_per_second: batch.count as f64 / seconds,
                each: memory::of(&memory::processes(&tag), GUEST_BYTES) / n,
                host_each: kept / n / f64::from(1 << 20),
            });
            // The next doubling starts as many as there are, and keeps as much as they do; the last may be less than one.
            if next >= plan.limit {
                break format!("the limit of {} instances", plan.limit);
            }
            let total = kvmlet_host::total_memory_bytes() as f64;
            if available_memory_bytes() as f64 - kept < total * RESERVE {
                break "the host's memory".into();
            }
            let took = begun.elapsed();
            if took + Duration::from_secs_f64(seconds * next as f64 / batch.count as f64)
                > plan.budget
            {
                break format!("the time: {} s for each contestant", plan.budget.as_secs());
            }
            next = (next * 2).min(plan.limit);
        };
        Ok(crowd)
    }
}

/// Instances that run, and why the first failed that did. All are gone when this is dropped.
#[derive(Default)]
struct Instances {
    all: Vec<Instance>,
    failure: Option<String>,
}

struct Instance {
    launch: Launch,
    running: Option<Running>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The launcher first, so that it does not mourn its container.
        drop(self.running.take());
        self.launch.clean_up();
    }
}

/// Some starts at the same time.
struct Batch<'a> {
    first: usize,
    count: usize,
    plan: Plan,
    workshop: &'a Workshop,
    signals: &'a Signals,
}

impl Batch<'_> {
    fn start(&self, entrant: &Entrant, instances: &mut Instances) -> Result<(), Halt> {
        // What an instance needs is made before the clock starts.
        let number = |index: usize| self.first + index + 1;
        let launches: Result<Vec<Launch>, String> = (0..self.count)
            .map(|index| entrant.contestant.launch(number(index), Service::Stays))
            .collect();
        let launches = match launches {
            Ok(launches) => launches,
            Err(message) => {
                instances.failure = Some(message);
                return Ok(());
            }
        };
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (started, halted) = (Mutex::new(Vec::new()), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..self.plan.parallel.min(self.count) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(launch) = launches.get(index) else {
                            return;
                        };
                        let (running, halt) = self.one(launch, number(index));
                        lock(&started).push(Instance {
                            launch: launch.clone(),
                            running,
                        });
                        if let Some(halt) = halt {
                            stop.store(true, Ordering::Relaxed);
                            lock(&halted).get_or_insert(halt);
                        }
                    }
                });
            }
        });
        instances
            .all
            .append(&mut started.into_inner().unwrap_or_else(PoisonError::into_inner));
        match halted.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Halt::Failed(message)) => instances.failure = Some(message),
            Some(Halt::Interrupted) => return Err(Halt::Interrupted),
            None => {}
        }
        Ok(())
    }

    fn one(&self, launch: &Launch, number: usize) -> (Option<Running>, Option<Halt>) {
        let stderr = self.workshop.path().join(format!("stderr-{number}"));
        match Running::start(&launch.argv, &stderr, self.plan.deadline) {
            Ok(mut running) => {
                let halt = running.wait_ready(self.signals).err();
                (Some(running), halt)
            }
            Err(halt) => (None, Some(halt)),
        }
    }
}
