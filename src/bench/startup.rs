//! The start-up benchmark as a whole, and its result.

use super::beside::{Beside, Neighbours};
use super::conditions::Conditions;
use super::contest::{Contest, Entrant, Plan, Step};
use super::contestant::{Kind, Presence, named};
use super::effort::Effort;
use super::error::{Error, Halt};
use super::facts::HostFacts;
use super::launch::Launch;
use super::phases::{self, Segment};
use super::sample::{Figures, Series};
use super::workshop::{Programs, Workshop, own_mounts};
use kvmlet_sys::signals::Signals;
use serde::Serialize;
use std::time::Duration;

/// When clocks start and stop, for whoever reads a result.
pub const CLOCK: &str = "CLOCK_MONOTONIC of the benchmark's process. It starts right before the command is spawned \
    (posix_spawn, so fork and exec count) and stops when the line “ready” has been read from the command's standard \
    output, and a second time when the command has ended and was waited for.";
/// What is started.
pub const SERVICE: &str = "One static program without a C library: it writes the line “ready” and exits with 0. It is \
    the process itself, the first process of each container, and a program of the guest in Linux microVMs. A \
    bare-metal guest writes the same line to its serial port with its first instructions.";

/// The signals that end a benchmark, and all that it has started.
pub(super) const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
/// Starts of kvmlet for its phases.
const PHASE_STARTS: usize = 30;

/// What `kvmlet bench startup` has found.
#[derive(Serialize)]
pub struct Startup {
    /// `startup`.
    pub benchmark: &'static str,
    /// kvmlet's version.
    pub kvmlet: &'static str,
    /// When clocks start and stop.
    pub clock: &'static str,
    /// What is started.
    pub service: &'static str,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// The host.
    pub host: HostFacts,
    /// What makes the figures special, or doubtful.
    pub warnings: Vec<String>,
    /// How many idle VMs ran beside for a part of it.
    pub beside: usize,
    /// All contestants, those that are absent included.
    pub contestants: Vec<Contender>,
    /// The phases of kvmlet's start with a bare-metal guest, in order, in milliseconds.
    pub phases: Vec<Segment>,
}

/// One contestant and its figures.
#[derive(Serialize)]
pub struct Contender {
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
    /// What its starts come to.
    pub figures: Figures,
    /// What a start takes of a virtual machine monitor; only they have it.
    pub effort: Option<Effort>,
    /// Every start.
    pub samples: Series,
    /// The same while others ran, if that was asked for.
    pub beside: Option<Beside>,
}

impl Startup {
    /// Runs the benchmark with the contestants of these names, or all, and tells `watch` each step.
    ///
    /// # Errors
    /// When there is nothing to start or no place to work in, and when a signal ends it. Contestants that fail
    /// are part of the result.
    pub fn measure(
        plan: Plan,
        conditions: &Conditions,
        programs: &Programs,
        names: &[String],
        watch: &mut dyn FnMut(Step<'_>),
    ) -> Result<Self, Error> {
        programs.check()?;
        let mut contestants = named(programs, names)?;
        contestants.extend(conditions.contestants(programs));
        let host = HostFacts::read();
        let mut warnings = host.warnings();
        warnings.extend(own_mounts());
        warnings.extend(conditions.prepare());
        let workshop = Workshop::open()?;
        let signals = Signals::take(&ENDING).map_err(Error::Signals)?;
        let mut entrants = Contest::enter(contestants, &workshop);
        let mut course = Course {
            plan,
            programs,
            workshop: &workshop,
            signals: &signals,
            watch,
        };
        let crowded = course.run(&mut entrants, conditions.beside)?;
        let (crowded, beside) = match crowded {
            Ok(series) => (series, conditions.beside),
            Err(message) => {
                warnings.push(format!(
                    "Nothing is told of starts beside others: {message}"
                ));
                (None, 0)
            }
        };
        let efforts = efforts(&entrants, plan, &workshop, &signals)?;
        let phases = match phases::measure(programs, &workshop, PHASE_STARTS, &signals) {
            Ok(phases) => phases,
            Err(Halt::Interrupted) => return Err(Error::interrupted(&signals)),
            Err(Halt::Failed(message)) => {
                warnings.push(format!(
                    "The phases of kvmlet's start could not be measured: {message}"
                ));
                Vec::new()
            }
        };
        Ok(Self {
            benchmark: "startup",
            kvmlet: env!("CARGO_PKG_VERSION"),
            clock: CLOCK,
            service: SERVICE,
            rounds: plan.rounds,
            host,
            warnings,
            beside,
            contestants: contenders(entrants, efforts, crowded),
            phases,
        })
    }
}

/// For each of the entrants that is a virtual machine monitor and works.
fn efforts(
    entrants: &[Entrant],
    plan: Plan,
    workshop: &Workshop,
    signals: &Signals,
) -> Result<Vec<Option<Effort>>, Error> {
    let of = |entrant: &Entrant| {
        let vmm = matches!(entrant.contestant.kind(), Kind::BareMetal | Kind::MicroVm);
        if !vmm || entrant.series.ready_ms().is_empty() {
            return Ok(None);
        }
        let effort = Effort::measure(
            entrant.contestant.as_ref(),
            plan.deadline,
            workshop,
            signals,
        );
        effort.map(Some).map_err(|_| Error::interrupted(signals))
    };
    entrants.iter().map(of).collect()
}

/// All rounds.
struct Course<'a> {
    plan: Plan,
    programs: &'a Programs,
    workshop: &'a Workshop,
    signals: &'a Signals,
    watch: &'a mut dyn FnMut(Step<'_>),
}

/// What was measured beside others, for each entrant, if that was asked for; or why it could not be.
type Crowded = Result<Option<Vec<Series>>, String>;

impl Course<'_> {
    /// Half of the rounds are before and half after those beside others: a machine is not always as fast.
    fn run(&mut self, entrants: &mut [Entrant], beside: usize) -> Result<Crowded, Error> {
        if beside == 0 {
            return self.part(entrants, self.plan.rounds, 0).map(|()| Ok(None));
        }
        let half = self.plan.rounds.div_ceil(2);
        self.part(entrants, half, 0)?;
        let started = Neighbours::start(beside, self.programs, self.workshop, self.signals);
        let crowded = match started {
            Err(Halt::Interrupted) => return Err(Error::interrupted(self.signals)),
            Err(Halt::Failed(message)) => Err(message),
            Ok(_neighbours) => {
                let take = |entrant: &mut Entrant| std::mem::take(&mut entrant.series);
                let alone: Vec<Series> = entrants.iter_mut().map(take).collect();
                self.part(entrants, self.plan.rounds, half)?;
                let swap = |(entrant, alone): (&mut Entrant, Series)| {
                    std::mem::replace(&mut entrant.series, alone)
                };
                Ok(Some(entrants.iter_mut().zip(alone).map(swap).collect()))
            }
        };
        if self.plan.rounds > half {
            self.part(entrants, self.plan.rounds - half, half + self.plan.rounds)?;
        }
        Ok(crowded)
    }

    fn part(
        &mut self,
        entrants: &mut [Entrant],
        rounds: usize,
        before: usize,
    ) -> Result<(), Error> {
        let plan = Plan {
            rounds,
            ..self.plan
        };
        let contest = Contest::new(plan, self.workshop, self.signals, self.watch);
        contest.after(before).run(entrants)
    }
}

fn contenders(
    entrants: Vec<Entrant>,
    efforts: Vec<Option<Effort>>,
    crowded: Option<Vec<Series>>,
) -> Vec<Contender> {
    let base = entrants
        .iter()
        .find(|one| one.contestant.kind() == Kind::Process)
        .map(|one| one.series.clone());
    let crowded = crowded.into_iter().flatten().map(Some);
    let crowded = crowded.chain(std::iter::repeat(None));
    let contender = |((entrant, effort), crowded): ((Entrant, _), Option<Series>)| Contender {
        name: entrant.contestant.name(),
        about: entrant.contestant.about(),
        kind: entrant.contestant.kind(),
        presence: entrant.presence,
        command: command(entrant.launch.as_ref()),
        figures: entrant.series.figures(base.as_ref()),
        effort,
        beside: crowded.map(|samples| Beside::new(samples, &entrant.series)),
        samples: entrant.series,
    };
    let all = entrants.into_iter().zip(efforts).zip(crowded);
    all.map(contender).collect()
}

pub(super) fn command(launch: Option<&Launch>) -> Vec<String> {
    let argv = launch
        .map(|launch| launch.argv.as_slice())
        .unwrap_or_default();
    argv.iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

impl Default for Plan {
    /// 100 rounds, 15 s for each contestant, 2 minutes for a start.
    fn default() -> Self {
        Self {
            rounds: 100,
            budget: Duration::from_secs(15),
            deadline: Duration::from_secs(120),
        }
    }
}
