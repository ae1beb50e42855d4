//! What a VM is doing.

use crate::Malformed;

/// What a VM is doing, from the start of its supervisor until its [end](crate::Report::Ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It is being built.
    Starting,
    /// Its guest runs.
    Running,
    /// It stands still.
    Paused,
    /// Its end is wanted: the guest was asked to power off, until its time is up and its power is cut.
    Ending,
    /// It was saved, and stands still until its power is cut, which comes at once.
    Suspended,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Ending,
        Self::Suspended,
    ];

    /// The word: `running`, say.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Suspended => "suspended",
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Running => 1,
            Self::Paused => 2,
            Self::Ending => 3,
            Self::Suspended => 4,
        }
    }

    pub(crate) fn of(number: u8) -> Result<Self, Malformed> {
        let state = Self::ALL.into_iter().find(|state| state.number() == number);
        state.ok_or(Malformed::Value(number))
    }
}
