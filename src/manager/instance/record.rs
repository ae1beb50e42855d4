//! What is noted of an instance while it runs and when it has ended, and what follows of that.

use crate::moment::Moment;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::read_to_string;

/// What an instance is doing, in docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was made, or is being started, and does not run yet.
    Created,
    /// Its VM runs.
    Running,
    /// Its VM stands still.
    Paused,
    /// Its VM is in a file, and has nothing else of the host.
    Suspended,
    /// Its VM has ended and is going to be started again, or its service is taken over from where it was suspended.
    Restarting,
    /// Its VM has ended, and how is known.
    Exited,
    /// Its supervisor is gone, and its VM with it; how that would have ended nobody knows.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Suspended,
        Self::Restarting,
        Self::Exited,
        Self::Dead,
    ];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// What it does instead of running, behind "it".
    pub const fn instead(self) -> &'static str {
        match self {
            Self::Created => "has not run yet",
            Self::Running => "runs by now",
            Self::Paused => "is paused",
            Self::Suspended => "is suspended",
            Self::Restarting => "is about to be started again",
            Self::Exited => "has ended",
            Self::Dead => "has died with its supervisor",
        }
    }

    /// What keeps others from doing something with it.
    pub(crate) const fn in_use(self) -> &'static str {
        match self {
            Self::Running | Self::Paused | Self::Suspended | Self::Restarting => self.name(),
            Self::Created | Self::Exited | Self::Dead => "in use by another command",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How far a supervisor has come, as it notes it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// There has been none yet.
    Created,
    /// The VM is being built.
    Starting,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It is in a file, in the directory of the instance, and has not run since.
    Suspended,
    /// It has ended and is going to be started again.
    Restarting,
    /// It has ended for good.
    Exited,
}

/// A process, told from others that have had its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in the kernel's ticks since the host did (proc_pid_stat(5)).
    pub ticks: u64,
    /// The host's start that this is counted from (`boot_id` in random(4)).
    pub boot: String,
}

impl Process {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            ticks: look(pid).map_or(0, |(_, ticks)| ticks),
            boot: boot(),
        }
    }

    /// Does it still run?
    pub fn lives(&self) -> bool {
        let found = look(self.pid);
        let is_it =
            found.is_some_and(|(state, ticks)| ticks == self.ticks && !"ZX".contains(state));
        is_it && self.is_of_this_boot()
    }

    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }
}

fn boot() -> String {
    let text = read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim_end().into()
}

/// State and start of a process. Its name, which may be anything, is in parentheses before them.
fn look(pid: u32) -> Option<(char, u64)> {
    let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of which run this is the outcome, counted from 1.
    pub run: u64,
    /// The exit code.
    pub code: u8,
    /// When that was.
    pub ended: Moment,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

impl Outcome {
    /// The longest text of an error that is kept, in bytes.
    pub const ERROR_BYTES: usize = 1024;
}

/// What is noted of an instance beside what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How often a supervisor was started.
    pub run: u64,
    /// How far the last one has come.
    pub step: Step,
    /// It itself.
    pub keeper: Option<Process>,
    /// The file that it has locked: device and number, which a copy does not have.
    pub(crate) lock: Option<(u64, u64)>,
    /// When its VM was started last.
    pub started: Option<Moment>,
    /// How often it has started its VM again.
    pub restarts: u32,
    /// Whether somebody has stopped it, so that it is not to be started again by itself.
    pub stopped: bool,
    /// Whether the service is well, if that is asked for: `starting`, `healthy`, `unhealthy`.
    pub health: Option<String>,
    /// How the last run of which that is known has ended.
    pub outcome: Option<Outcome>,
    /// Since when it is suspended, if it is.
    #[serde(default)]
    pub suspended: Option<Moment>,
    /// Why it could not be resumed the last time that somebody wanted that.
    #[serde(default)]
    pub unresumed: Option<String>,
    /// The last run went on where the one before was suspended.
    #[serde(default)]
    pub resumed: bool,
    /// It was suspended by itself, as nobody has used it.
    #[serde(default)]
    pub idle: bool,
    /// Its VM is gone, and its supervisor has it go on when it is wanted, if that lives.
    #[serde(default)]
    pub(crate) sleeps: bool,
    /// How often it was suspended.
    #[serde(default)]
    pub suspensions: u64,
}

impl Record {
    pub(crate) const NEW: Self = Self {
        run: 0,
        step: Step::Created,
        keeper: None,
        lock: None,
        started: None,
        restarts: 0,
        stopped: false,
        health: None,
        outcome: None,
        suspended: None,
        unresumed: None,
        resumed: false,
        idle: false,
        sleeps: false,
        suspensions: 0,
    };

    /// What the instance is doing, where it is known whether its supervisor lives.
    pub(crate) fn state(&self, keeper_lives: bool) -> State {
        match (self.step, keeper_lives) {
            (Step::Starting, true) if self.resumed => State::Restarting,
            (Step::Created, _) | (Step::Starting, true) => State::Created,
            (Step::Running, true) => State::Running,
            (Step::Paused, true) => State::Paused,
            (Step::Suspended, _) => State::Suspended,
            (Step::Restarting, true) => State::Restarting,
            (Step::Exited, _) => State::Exited,
            (Step::Starting | Step::Running | Step::Paused | Step::Restarting, false) => {
                State::Dead
            }
        }
    }
}

/// How a run has ended, as far as anybody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its supervisor has told.
    Told(Outcome),
    /// Its supervisor was killed.
    Killed,
    /// The host was restarted, or lost its power.
    HostRestarted,
    /// This is a copy of a book, which was made while the instance ran.
    Copied,
    /// It has never run.
    NeverRan,
    /// It has none: its VM is in a file.
    Suspended,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(outcome) => write!(f, "exit code {}", outcome.code),
            Self::Killed => f.write_str("its supervisor was killed"),
            Self::HostRestarted => f.write_str("the host was restarted"),
            Self::Copied => f.write_str("the book was copied while it ran"),
            Self::NeverRan => f.write_str("it has never run"),
            Self::Suspended => f.write_str("it is suspended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_from_others() {
        let this = Process::this();
        assert!(this.lives() && this.is_of_this_boot());
        let earlier = Process {
            ticks: this.ticks - 1,
            ..this.clone()
        };
        assert!(!earlier.lives());
        let boot = "another".into();
        assert!(!Process { boot, ..this }.lives());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (_, ticks) = look(child.id()).unwrap();
        let gone = Process {
            pid: child.id(),
            ticks,
            boot: super::boot(),
        };
        // It has ended, and nobody has waited for it yet.
        while look(gone.pid).unwrap().0 != 'Z' {
            std::thread::yield_now();
        }
        assert!(!gone.lives());
        child.wait().unwrap();
        assert!(!gone.lives());
    }

    #[test]
    fn who_cannot_be_alive_is_not_said_to_be() {
        let state = |step, lives| {
            Record {
                step,
                ..Record::NEW
            }
            .state(lives)
        };
        for step in [
            Step::Starting,
            Step::Running,
            Step::Paused,
            Step::Restarting,
        ] {
            assert_eq!(state(step, false), State::Dead);
        }
        assert_eq!(state(Step::Starting, true), State::Created);
        for (step, same) in [
            (Step::Created, State::Created),
            (Step::Suspended, State::Suspended),
            (Step::Exited, State::Exited),
        ] {
            assert_eq!([state(step, true), state(step, false)], [same; 2]);
        }
    }
}
