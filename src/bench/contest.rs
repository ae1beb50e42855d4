//! Rounds in which every contestant starts once, so that what disturbs the machine disturbs all of them. Each round has
//! an order of its own: what one leaves to be cleared up (a daemon that ends a container, a kernel that ends its
//! network) falls to whoever comes next, and that is not always the same.

use super::contestant::{Contestant, Presence, Service};
use super::error::{Error, Halt};
use super::launch::Launch;
use super::sample::{Outcome, Sample, Series};
use super::statistics::SplitMix64;
use super::workshop::Workshop;
use kvmlet_sys::signals::Signals;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds that count.
    pub rounds: usize,
    /// Time for each contestant. One that is too slow for all rounds takes part in some of them, evenly spread.
    pub budget: Duration,
    /// A start that takes longer has failed.
    pub deadline: Duration,
}

/// However slow it is, a contestant takes part in this many rounds.
const LEAST_ROUNDS: usize = 3;
/// This many starts of each contestant warm up caches, as far as its time allows.
const WARM_UP: usize = 5;

/// A contestant and what it has shown so far.
pub struct Entrant {
    /// Who it is.
    pub contestant: Box<dyn Contestant>,
    /// Whether it takes part.
    pub presence: Presence,
    /// The command of its last start.
    pub launch: Option<Launch>,
    /// All its starts.
    pub series: Series,
    rounds: usize,
}

/// What a contest is at, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// `warm-up` or `round`.
    pub stage: &'static str,
    /// Number of the round, from 1.
    pub round: usize,
    /// Number of all rounds.
    pub of: usize,
    /// Who starts next.
    pub name: &'a str,
}

/// A contest that goes on.
pub struct Contest<'a> {
    plan: Plan,
    signals: &'a Signals,
    stderr: PathBuf,
    number: usize,
    first: usize,
    watch: &'a mut dyn FnMut(Step<'_>),
}

impl<'a> Contest<'a> {
    /// A contest with nobody in it yet.
    pub fn new(
        plan: Plan,
        workshop: &Workshop,
        signals: &'a Signals,
        watch: &'a mut dyn FnMut(Step<'_>),
    ) -> Self {
        Self {
            plan,
            signals,
            stderr: workshop.path().join("stderr"),
            number: 0,
            first: 0,
            watch,
        }
    }

    /// Calls its first round by this number, since others were before.
    pub fn after(mut self, rounds: usize) -> Self {
        (self.first, self.number) = (rounds, rounds << 16);
        self
    }

    /// Asks every contestant whether it can take part, and lets it prepare.
    pub fn enter(contestants: Vec<Box<dyn Contestant>>, workshop: &Workshop) -> Vec<Entrant> {
        let enter = |mut contestant: Box<dyn Contestant>| {
            let mut presence = contestant.probe();
            if let Presence::Present { .. } = presence
                && let Err(message) = contestant.prepare(workshop)
            {
                presence = Presence::Unusable { message };
            }
            Entrant {
                contestant,
                presence,
                launch: None,
                series: Series::default(),
                rounds: 0,
            }
        };
        contestants.into_iter().map(enter).collect()
    }

    /// Warm-up and all rounds.
    ///
    /// # Errors
    /// Only a signal ends a contest early; failures are samples.
    pub fn run(mut self, entrants: &mut [Entrant]) -> Result<(), Error> {
        let mut present: Vec<&mut Entrant> = entrants
            .iter_mut()
            .filter(|one| matches!(one.presence, Presence::Present { .. }))
            .collect();
        for entrant in &mut present {
            self.warm_up(entrant)?;
        }
        let rounds = self.plan.rounds;
        for round in 0..rounds {
            for number in order(round, present.len()) {
                let entrant = &mut present[number];
                if !takes_part(round, entrant.rounds, rounds) {
                    continue;
                }
                let step = Step {
                    stage: "round",
                    round: round + 1,
                    of: self.plan.rounds,
                    name: "",
                };
                self.start(entrant, step)?;
            }
        }
        Ok(())
    }

    /// A few starts that do not count, from which it is known how many the time is enough for.
    fn warm_up(&mut self, entrant: &mut Entrant) -> Result<(), Error> {
        let begun = Instant::now();
        let mut starts = 0;
        while starts < WARM_UP && begun.elapsed() * 10 <= self.plan.budget {
            let step = Step {
                stage: "warm-up",
                round: starts + 1,
                of: WARM_UP,
                name: "",
            };
            self.start(entrant, step)?;
            starts += 1;
        }
        let each = begun.elapsed() / starts.max(1) as u32;
        let affordable = self.plan.budget.as_nanos() / each.as_nanos().max(1);
        let works = starts == 0 || entrant.series.failures().count() < starts;
        // What fails always would only fail again, and may take its time for it.
        let most = if works {
            self.plan.rounds
        } else {
            LEAST_ROUNDS.min(self.plan.rounds)
        };
        let least = if works { LEAST_ROUNDS } else { 0 };
        entrant.rounds = usize::try_from(affordable)
            .unwrap_or(most)
            .max(least)
            .min(most);
        Ok(())
    }

    fn start(&mut self, entrant: &mut Entrant, step: Step<'_>) -> Result<(), Error> {
        (self.watch)(Step {
            name: entrant.contestant.name(),
            ..step
        });
        self.number += 1;
        let launch = entrant.contestant.launch(self.number, Service::Ends);
        let result = launch.map_err(Halt::Failed).and_then(|launch| {
            let times = launch.time(&self.stderr, self.plan.deadline, self.signals);
            entrant.launch = Some(launch);
            times
        });
        let outcome = match result {
            Ok(times) => Outcome::Ready(times),
            Err(Halt::Failed(error)) => Outcome::Failed { error },
            Err(Halt::Interrupted) => return Err(Error::interrupted(self.signals)),
        };
        entrant.series.push(Sample {
            round: self.first + step.round - 1,
            warm_up: step.stage == "warm-up",
            outcome,
        });
        Ok(())
    }
}

/// The order of a round: a shuffle (Fisher and Yates), the same for the same number.
fn order(round: usize, all: usize) -> Vec<usize> {
    let mut random = SplitMix64(round as u64);
    let mut order: Vec<usize> = (0..all).collect();
    for last in (1..all).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

/// Does one that takes part in `mine` of `all` rounds take part in this one? They are evenly spread.
fn takes_part(round: usize, mine: usize, all: usize) -> bool {
    (round + 1) * mine / all > round * mine / all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contestant::Kind;
    use std::cell::RefCell;
    use std::rc::Rc;

    struct Script(&'static str, &'static str, Rc<RefCell<Vec<&'static str>>>);

    impl Contestant for Script {
        fn name(&self) -> &'static str {
            self.0
        }
        fn about(&self) -> &'static str {
            ""
        }
        fn kind(&self) -> Kind {
            Kind::Process
        }
        fn probe(&self) -> Presence {
            match self.1 {
                "" => Presence::Absent {
                    install: "make it".into(),
                },
                _ => Presence::Present {
                    version: "1".into(),
                },
            }
        }
        fn launch(&self, _: usize, _: Service) -> Result<Launch, String> {
            self.2.borrow_mut().push(self.0);
            Ok(Launch::new(["sh", "-c", self.1]))
        }
    }

    fn run(
        scripts: &[(&'static str, &'static str)],
        plan: Plan,
    ) -> (Vec<Entrant>, Vec<&'static str>) {
        let order = Rc::new(RefCell::new(Vec::new()));
        let boxed = |(name, script): &(&'static str, &'static str)| -> Box<dyn Contestant> {
            Box::new(Script(name, script, order.clone()))
        };
        let workshop = Workshop::open().unwrap();
        let signals = Signals::take(&[]).unwrap();
        let mut entrants = Contest::enter(scripts.iter().map(boxed).collect(), &workshop);
        Contest::new(plan, &workshop, &signals, &mut |_| {})
            .run(&mut entrants)
            .unwrap();
        let order = order.borrow().clone();
        (entrants, order)
    }

    const PLAN: Plan = Plan {
        rounds: 4,
        budget: Duration::from_secs(60),
        deadline: Duration::from_secs(20),
    };

    #[test]
    fn everybody_starts_once_a_round_after_the_warm_up() {
        let (entrants, order) = run(
            &[("a", "echo ready"), ("b", "echo ready"), ("absent", "")],
            PLAN,
        );
        assert_eq!(order[..WARM_UP], ["a"; WARM_UP]);
        let rounds = order[2 * WARM_UP..].chunks(2);
        assert_eq!(rounds.len(), PLAN.rounds);
        for round in rounds {
            assert!(matches!(round, ["a", "b"] | ["b", "a"]), "{round:?}");
        }
        assert_eq!(entrants[0].series.ready_ms().len(), 4);
        assert_eq!(entrants[0].series.samples().len(), 4 + WARM_UP);
        assert!(entrants[2].series.samples().is_empty());
        assert_eq!(
            entrants[2].presence,
            Presence::Absent {
                install: "make it".into()
            }
        );
    }

    #[test]
    fn failures_are_samples_with_their_message_and_few() {
        let plan = Plan { rounds: 50, ..PLAN };
        let (entrants, _) = run(&[("bad", "echo no such luck >&2; exit 9")], plan);
        let failures: Vec<_> = entrants[0].series.failures().collect();
        assert_eq!(failures.len(), WARM_UP + LEAST_ROUNDS);
        assert!(
            failures.iter().all(|error| error.contains("no such luck")),
            "{failures:?}"
        );
        assert!(entrants[0].series.ready_ms().is_empty());
    }

    #[test]
    fn who_is_slow_takes_part_in_fewer_rounds_evenly_spread() {
        let plan = Plan {
            rounds: 12,
            budget: Duration::from_nanos(1),
            ..PLAN
        };
        let (entrants, _) = run(&[("slow", "echo ready")], plan);
        let rounds: Vec<_> = entrants[0]
            .series
            .samples()
            .iter()
            .filter(|one| !one.warm_up)
            .map(|one| one.round)
            .collect();
        assert_eq!(rounds, [3, 7, 11]);
    }

    #[test]
    fn whoever_comes_first_and_who_comes_next_is_not_always_the_same() {
        const ALL: usize = 7;
        let rounds = 700;
        let mut first = [0; ALL];
        let mut next = [[0; ALL]; ALL];
        for round in 0..rounds {
            let order = order(round, ALL);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..ALL), "{order:?}");
            assert_eq!(order, super::order(round, ALL));
            first[order[0]] += 1;
            order
                .windows(2)
                .for_each(|pair| next[pair[0]][pair[1]] += 1);
        }
        // A hundred each, were it even.
        assert!(
            first.iter().all(|count| (60..140).contains(count)),
            "{first:?}"
        );
        for (one, row) in next.iter().enumerate() {
            let others = row.iter().enumerate().filter(|(other, _)| *other != one);
            let mut counts = others.map(|(_, count)| *count);
            assert!(counts.all(|count| (60..140).contains(&count)), "{row:?}");
        }
    }

    #[test]
    fn everyone_takes_part_as_often_as_planned() {
        for all in 1..40 {
            for mine in 0..=all {
                assert_eq!(
                    (0..all)
                        .filter(|round| takes_part(*round, mine, all))
                        .count(),
                    mine
                );
            }
        }
    }
}
