//! What a supervisor needs before it starts anything.

use super::audience::Audience;
use super::ending::{FAILED, HOST_ENDS};
use super::sleeping::GO_ON;
use super::starter::Starter;
use super::{Last, Program, Step, Told};
use crate::instance::{Keeper, Step as Noted};
use crate::logs::LogWriter;
use crate::{Asked, Error, Owned};
use kvmlet_spec::supervision::RestartPolicy;
use kvmlet_sys::causes;
use kvmlet_sys::signals::{ENDING, Signals};

pub(super) struct Prepared {
    pub signals: Signals,
    /// Who starts the program.
    pub starter: Starter,
    pub log: LogWriter,
    pub audience: Option<Audience>,
}

impl Prepared {
    pub fn of(keeper: &Keeper, asked: &Asked, program: &Program<'_>) -> Result<Self, Error> {
        let path = keeper.directory().path().to_path_buf();
        // While there is one thread, and nobody is heard yet.
        let once = asked.restart == RestartPolicy::No && program.holds.is_none();
        let starter = Starter::fork(program, once).map_err(Error::file(&path))?;
        let signals = Signals::take(&[ENDING.as_slice(), &[HOST_ENDS, GO_ON]].concat());
        let signals = signals.map_err(Error::file(&path))?;
        let log = LogWriter::confined(keeper.directory(), asked.log, program.confine)
            .map_err(Error::file(&path))?;
        let audience = program
            .channel
            .as_ref()
            .map(|_| Audience::listen(keeper.directory()));
        Ok(Self {
            signals,
            starter,
            log,
            audience: audience.transpose().map_err(Error::file(&path))?,
        })
    }
}

/// What cannot be prepared is the end of a run, which is told: not that of a supervisor that was killed.
pub(super) fn not_started(
    mut keeper: Keeper,
    error: &Error,
    told: Told<'_>,
) -> Result<(Owned, Last), Error> {
    let text = causes::in_a_line(error);
    let suspended = keeper.record().step == Noted::Suspended;
    if suspended {
        keeper.not_resumed(&text)?;
    }
    told(Step::Fails(&text));
    let owned = match suspended {
        true => keeper.stay_suspended()?,
        false => keeper.end(FAILED, Some(&text))?,
    };
    let error = Some(text);
    Ok((
        owned,
        Last {
            code: FAILED,
            error,
            began: false,
            suspended,
        },
    ))
}
