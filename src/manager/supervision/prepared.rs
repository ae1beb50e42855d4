//! What a supervisor needs before it starts anything.

use super::audience::Audience;
use super::ending::{FAILED, HOST_ENDS};
use super::{Last, Program, Step, Told};
use crate::instance::Keeper;
use crate::logs::LogWriter;
use crate::{Asked, Error, Owned};
use kvmlet_sys::causes;
use kvmlet_sys::signals::{ENDING, Signals};

pub(super) struct Prepared {
    pub signals: Signals,
    pub asked: Asked,
    pub log: LogWriter,
    pub audience: Option<Audience>,
}

impl Prepared {
    pub fn of(keeper: &Keeper, program: &Program<'_>) -> Result<Self, Error> {
        let path = keeper.directory().path().to_path_buf();
        let signals = Signals::take(&[ENDING.as_slice(), &[HOST_ENDS]].concat());
        let signals = signals.map_err(Error::file(&path))?;
        let asked = keeper.asked()?;
        let log = LogWriter::open(keeper.directory(), asked.log).map_err(Error::file(&path))?;
        let audience = program
            .channel
            .as_ref()
            .map(|_| Audience::listen(keeper.directory()));
        Ok(Self {
            signals,
            asked,
            log,
            audience: audience.transpose().map_err(Error::file(&path))?,
        })
    }
}

/// What cannot be prepared is the end of a run, which is told: not that of a supervisor that was killed.
pub(super) fn not_started(
    keeper: Keeper,
    error: &Error,
    told: Told<'_>,
) -> Result<(Owned, Last), Error> {
    let text = causes::in_a_line(error);
    told(Step::Fails(&text));
    let owned = keeper.end(FAILED, Some(&text))?;
    let error = Some(text);
    Ok((
        owned,
        Last {
            code: FAILED,
            error,
        },
    ))
}
