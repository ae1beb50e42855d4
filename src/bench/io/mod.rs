//! A disk and an interface of a VM against the same work on the host, and against those of other VMMs.
//!
//! Guests are bare metal and run at native speed on any KVM. Host and guest take turns, round by round.

mod disk;
mod host_disk;
mod host_net;
mod net;
mod peer;

use peer::Entrant;
pub use peer::{Peer, Rival};

use super::contest::Step;
use super::error::{Error, Halt};
use super::facts::HostFacts;
use super::running::Running;
use super::statistics::{Ratio, Summary};
use super::workshop::{Programs, Workshop, own_mounts};
use super::{launch::Launch, startup::ENDING};
use kvmlet_sys::signals::Signals;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A guest that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(120);
/// The entropy source has the first slot, the one device that a guest is given the one behind. In other VMMs it finds its
/// device by what these add to the command line for Linux.
const SLOT: &str = "mmio=0xd0002000";

const METHOD: &str = "A disk is a file of 256 MiB in the temporary directory, used past the page cache (O_DIRECT): the guest \
    offers this many requests at a time and waits for all of them; the host does the same through an io_uring. “cached” is the same through the page cache, which \
    has the whole file. An \
    interface is a tap in an empty network namespace: the guest sends frames into it, or takes those that a packet \
    socket sends; on the host a thread writes frames to a tap, or reads them, one system call each. Other VMMs that are \
    installed run the same guest in turn, with the same file, or with a tap of their own: Firecracker, whose devices are \
    registers in memory, as kvmlet's, with each of its engines, and through the page cache alone, past which it has no \
    way; Cloud Hypervisor, whose devices are on a PCI bus. “vhost” is the same \
    where the host has /dev/vhost-net, by its kernel. The guest's clock is \
    its TSC, from the first request or frame to the last; the host's is monotonic.";

/// What `kvmlet bench io` has found.
#[derive(Serialize)]
pub struct Io {
    /// `io`.
    pub benchmark: &'static str,
    /// kvmlet's version.
    pub kvmlet: &'static str,
    /// What the figures are, for whoever reads them.
    pub method: &'static str,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// The host.
    pub host: HostFacts,
    /// What makes the figures special, or doubtful.
    pub warnings: Vec<String>,
    /// Other VMMs, those that are absent included.
    pub peers: Vec<Peer>,
    /// Each kind of work.
    pub work: Vec<Work>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// One kind of work.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    /// What is done.
    pub name: &'static str,
    /// Size of each request or frame.
    pub bytes: usize,
    /// On the host, per second, in each round.
    pub on_host: Vec<f64>,
    /// In the guest, per second, in each round.
    pub in_guest: Vec<f64>,
    /// Median of the guest's in terms of the host's.
    pub to_host: Option<Ratio>,
    /// Requests or frames for each notification of the guest's, which is an exit where KVM has no ioeventfd.
    /// Frames that are received need none.
    pub per_notification: Option<f64>,
    /// The same guest in other VMMs.
    pub rivals: Vec<Rival>,
}

impl Work {
    pub(crate) fn new(name: &'static str, bytes: usize) -> Self {
        Self {
            name,
            bytes,
            on_host: Vec::new(),
            in_guest: Vec::new(),
            to_host: None,
            per_notification: None,
            rivals: Vec::new(),
        }
    }

    pub(crate) fn compare(&mut self) {
        self.to_host = Ratio::of(&self.in_guest, &self.on_host);
        for rival in &mut self.rivals {
            rival.kvmlet_to_it = Ratio::of(&self.in_guest, &rival.per_second);
        }
    }

    /// Median of a side's rates, per second.
    pub fn median(rates: &[f64]) -> f64 {
        Summary::of(rates).map_or(0.0, |summary| summary.median)
    }
}

/// What a guest has counted.
struct Counted {
    count: f64,
    ticks: f64,
    /// 0 where the VMM does not tell.
    khz: f64,
    per_notification: f64,
}

impl Counted {
    fn per_second(&self, khz: f64) -> Result<f64, Halt> {
        match self.ticks == 0.0 || khz == 0.0 {
            true => Err(Halt::Failed("the guest has no clock".into())),
            false => Ok(self.count * khz * 1e3 / self.ticks),
        }
    }
}

impl Io {
    /// Runs the benchmark, and tells `watch` each step.
    ///
    /// # Errors
    /// When a program or a place to work in is missing, and when a signal ends it. What fails on the way is part of
    /// the result.
    pub fn measure(
        rounds: usize,
        programs: &Programs,
        watch: &mut dyn FnMut(Step<'_>),
    ) -> Result<Self, Error> {
        programs.check()?;
        let host = HostFacts::read();
        let mut warnings = host.warnings();
        own_mounts();
        if kvmlet_sys::kvm::open().is_err() {
            warnings.push("There is no KVM that can be used, so guests fail.".into());
        }
        let workshop = Workshop::open()?;
        let signals = Signals::take(&ENDING).map_err(Error::Signals)?;
        let peers = Peer::all();
        let bench = Bench {
            peers: &peers,
            khz: Cell::new(0.0),
            failures: RefCell::default(),
            programs,
            workshop: &workshop,
            signals: &signals,
        };
        let mut all = Vec::new();
        type Side = fn(&Bench<'_>, usize, &mut dyn FnMut(usize)) -> Result<Vec<Work>, Halt>;
        let sides: [(&'static str, Side); 2] = [("disk", disk::measure), ("net", net::measure)];
        for (name, measure) in sides {
            let mut step = |round| {
                watch(Step {
                    stage: "round",
                    round,
                    of: rounds,
                    name,
                })
            };
            match measure(&bench, rounds, &mut step) {
                Ok(work) => all.extend(work),
                Err(Halt::Failed(message)) => bench.fail(format!("{name}: {message}")),
                Err(Halt::Interrupted) => return Err(Error::interrupted(&signals)),
            }
        }
        for work in &mut all {
            work.compare();
        }
        Ok(Self {
            benchmark: "io",
            kvmlet: env!("CARGO_PKG_VERSION"),
            method: METHOD,
            rounds,
            host,
            warnings,
            failures: bench.failures.take(),
            work: all,
            peers,
        })
    }
}

/// What all kinds of work need.
struct Bench<'a> {
    peers: &'a [Peer],
    /// Of the TSC, once it is known.
    khz: Cell<f64>,
    /// Of those who take part no more.
    failures: RefCell<Vec<String>>,
    programs: &'a Programs,
    workshop: &'a Workshop,
    signals: &'a Signals,
}

impl Bench<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.workshop.path().join(name)
    }

    fn fail(&self, message: String) {
        self.failures.borrow_mut().push(message);
    }

    /// What a line of a rival's guest says, per second.
    fn rate(&self, output: &str, name: &str, unit: &str) -> Result<f64, Halt> {
        let counted = parse(output, name, unit)?;
        // Who does not tell the frequency of the clock has the same one.
        let khz = match counted.khz {
            0.0 => self.khz.get(),
            khz => khz,
        };
        counted.per_second(khz)
    }

    /// A rival that fails is told of, and takes part no more.
    fn go_on_without<'a>(
        &self,
        done: Result<(), Halt>,
        rival: Entrant<'a>,
        all: &mut Vec<Entrant<'a>>,
    ) -> Result<(), Halt> {
        let Err(Halt::Failed(message)) = done else {
            return done;
        };
        self.fail(format!("{}: {message}", rival.name()));
        all.retain(|one| one.name() != rival.name());
        Ok(())
    }

    /// Starts `kvmlet boot` with a guest that knows its device by the command line.
    fn boot(&self, guest: &str, device: &[OsString], cmdline: &str) -> Result<Running, Halt> {
        let guest = self.programs.guest(guest);
        let mut argv: Vec<OsString> = vec![
            self.programs.kvmlet.clone().into(),
            "boot".into(),
            "--kernel".into(),
            guest.into(),
            "--cmdline".into(),
            format!("{SLOT} {cmdline}").into(),
        ];
        argv.extend(device.iter().cloned());
        Running::start(&Launch::new(argv).argv, &self.file("stderr"), DEADLINE)
    }
}

/// Who has its turn in a round, kvmlet being nobody's rival. Nobody comes first or last each time; but in the first round that is
/// kvmlet, which alone tells its guest how fast the clock is.
fn turns<'a>(entrants: &[Entrant<'a>], round: usize) -> Vec<Option<Entrant<'a>>> {
    let mut turns: Vec<_> = entrants.iter().copied().map(Some).collect();
    turns.insert(0, None);
    let first = (round - 1) % turns.len();
    turns.rotate_left(first);
    turns
}

/// What a guest says in a line that begins with `name`: `ops=2000 kicks=63 tsc=123 khz=2000000`.
fn parse(output: &str, name: &str, unit: &str) -> Result<Counted, Halt> {
    let missing = || Halt::Failed(format!("the guest says nothing of {name}: {output:?}"));
    let line = output.lines().find_map(|line| line.strip_prefix(name));
    let line = line.ok_or_else(missing)?;
    let number = |key: &str| {
        let word = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let number = word.and_then(|word| word.parse::<f64>().ok());
        number.ok_or_else(missing)
    };
    let (count, ticks, khz) = (number(unit)?, number("tsc")?, number("khz")?);
    Ok(Counted {
        count,
        ticks,
        khz,
        per_notification: count / number("kicks")?.max(1.0),
    })
}

/// A failure with what was tried.
fn failed(what: &str) -> impl Fn(std::io::Error) -> Halt + '_ {
    move |error| Halt::Failed(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counts_by_the_guests_clock() {
        let output = "features=0x1\r\nread4k depth=1 ops=500 kicks=100 tsc=2000000 khz=1000\r\n";
        let counted = parse(output, "read4k depth=1 ", "ops").ok().unwrap();
        let rate = counted.per_second(counted.khz).ok();
        assert_eq!((rate, counted.per_notification), (Some(250.0), 5.0));
        for (output, name) in [
            (output, "read4k depth=32 "),
            ("send tsc=0 khz=5 frames=1 kicks=1", "send "),
            ("send tsc=1 khz=0 frames=1 kicks=1", "send "),
        ] {
            let rate = parse(output, name, "frames").and_then(|one| one.per_second(one.khz));
            assert!(rate.is_err());
        }
    }
}
