//! The supervisor of an instance: it starts the program that runs the VM, keeps what that writes, starts it again as its
//! policy says, and notes how it has ended. Nobody but a signal talks to it.
//!
//! The program inherits the instance's lock. So the instance is not free before its VM is gone, whoever is killed first.

mod attending;
mod audience;
mod channel;
mod checks;
pub(crate) mod control;
mod dial;
mod ending;
mod handing;
mod holding;
mod idleness;
mod nap;
mod prepared;
mod probe;
mod program;
mod renewal;
mod running;
mod sleeping;
mod socket;
mod starter;
mod stopping;
mod suspending;
mod timekeeping;

pub use audience::{Audience, Wish};
pub use channel::ChannelSpec;
pub use dial::{VSOCK, ask, attach, connect};
pub use ending::HOST_ENDS;
pub use program::{Begin, Handed, Here, Holds, Program};
pub(crate) use sleeping::GO_ON;
pub(crate) use socket::address;
pub use socket::slot_of;

use crate::health::Health;
use crate::instance::{Keeper, Step as Noted};
use crate::logs::{LogWriter, Stream};
use crate::restart::{Decision, Restarts};
use crate::{Asked, Book, Error, Moment, Name, Owned};
use channel::Channel;
use checks::{CheckSpec, Checks};
use idleness::Idleness;
use kvmlet_spec::supervision::Span;
use kvmlet_sys::settling::Settling;
use kvmlet_sys::signals::Signals;
use kvmlet_sys::wait::Slot;
use nap::Nap;
use prepared::Prepared;
use running::{Ran, Running};
use starter::Starter;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use stopping::Manner;

/// What is told of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Whoever likes can be [attached](attach).
    Listens,
    /// The VM runs, or its service, if its guest tells of that.
    Runs,
    /// It does not, for this reason.
    Fails(&'a str),
}

/// Who waits for a start is told how far it is; nothing more when it runs or does not.
pub type Told<'a> = &'a mut dyn FnMut(Step<'_>);

/// How a VM has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its exit code.
    pub code: u8,
    /// What went wrong, if it has never run.
    pub error: Option<String>,
    /// Whether there was a VM that ran, whatever has become of its service.
    pub began: bool,
    /// It has not ended: its VM is in a file.
    pub suspended: bool,
}

struct Supervisor<'a> {
    book: &'a Book,
    /// Who is to be told that the service is well, as long as it has not been.
    well: Option<&'a dyn Fn()>,
    /// What is to be done once this process starts no program any more.
    confine: Option<fn() -> io::Result<()>>,
    /// Who starts it.
    starter: Starter,
    keeper: Keeper,
    signals: Signals,
    log: Option<LogWriter>,
    audience: Option<Audience>,
    /// How the health of the service is asked for, if it is.
    check: Option<CheckSpec>,
    /// Those of a service that runs.
    checks: Option<Checks>,
    /// It was not well, and is ended to be started again.
    unwell: bool,
    /// The service is not started before somebody is attached to it.
    attended: Option<BorrowedFd<'a>>,
    /// How long the service has to end.
    stop_timeout: Duration,
    /// The number of the signal that asks it to.
    stop_signal: u8,
    /// The next start is one from a snapshot.
    restores: bool,
    /// That is the instance itself, which is suspended until its VM is about to run.
    resumes: bool,
    /// Its VM goes on from there, which is told once its service is taken over.
    resumed: bool,
    /// Its VM is in a file, and has its power cut.
    suspended: bool,
    /// For how long it is not used until it is suspended by itself, if it is.
    idle_for: Option<Duration>,
    /// For how long it was not, while it runs.
    idle: Option<Idleness>,
    /// Who holds what it has of the host meanwhile.
    nap: Option<Nap>,
    /// That was begun.
    by_itself: bool,
    /// Why it goes on, until that is told.
    woken_by: Option<&'static str>,
    /// Somebody wants the end.
    stopped: bool,
    /// The service had no time to end, and was killed with its VM.
    killed: bool,
    /// The service was sent a signal that asks it to end, by somebody who does not want it to be started again.
    unwanted: bool,
}

/// Runs an instance, of which this is asked, until it has ended for good. This process has nothing else to do, and one thread.
///
/// # Errors
/// When nothing can be noted of it. What it could not be started by is no error of this: it is told.
pub fn supervise(
    book: &Book,
    keeper: Keeper,
    asked: &Asked,
    program: &Program<'_>,
    told: Told<'_>,
) -> Result<(Owned, Last), Error> {
    let Prepared {
        signals,
        mut starter,
        log,
        audience,
    } = match Prepared::of(&keeper, asked, program) {
        Ok(prepared) => prepared,
        Err(error) => return prepared::not_started(keeper, &error, told),
    };
    if audience.is_some() {
        told(Step::Listens);
    }
    let attended = program.channel.as_ref().and_then(|spec| spec.attended);
    let check = asked.health.clone().filter(|_| audience.is_some());
    let nap = starter.nap();
    let mut supervisor = Supervisor {
        nap,
        idle_for: asked.idle.map(Span::duration),
        idle: None,
        by_itself: false,
        woken_by: None,
        well: Some(program.well),
        confine: Some(program.confine),
        starter,
        audience,
        check: check.map(|check| CheckSpec::new(check, &asked.service)),
        checks: None,
        unwell: false,
        attended,
        book,
        keeper,
        signals,
        log: Some(log),
        stop_timeout: Duration::from_secs(asked.service.stop_timeout_s().into()),
        stop_signal: asked.service.stop_signal(),
        restores: program.first.is_some(),
        resumes: program.resumes,
        resumed: false,
        suspended: false,
        stopped: false,
        killed: false,
        unwanted: false,
    };
    let mut restarts = Restarts::new(asked.restart);
    let mut told = Some(told);
    loop {
        let since = Instant::now();
        let ran = supervisor.once(program, &mut told)?;
        (supervisor.checks, supervisor.idle) = (None, None);
        if supervisor.suspended && supervisor.nap.is_some() && supervisor.sleep()? {
            continue;
        }
        if supervisor.resumes || supervisor.suspended {
            return supervisor.finish(ran);
        }
        supervisor.tell("die", [("exitCode", ran.code.to_string())]);
        // Whoever was ended for not being well has failed, whatever it says.
        let failed = std::mem::take(&mut supervisor.unwell);
        let code = ran.code.max(failed.into());
        let unwanted = supervisor.stopped || supervisor.unwanted;
        let decision = match ran.started {
            true => restarts.ended(code, since.elapsed(), unwanted),
            // What cannot be started now could not be started again.
            false if restarts.count() == 0 => Decision::Stay,
            false => restarts.ended(code, since.elapsed(), unwanted),
        };
        if let Decision::Again { after } = decision {
            supervisor
                .keeper
                .restarting(ran.code, ran.error.as_deref())?;
            if supervisor.pause(after)? {
                supervisor.tell("restart", []);
                continue;
            }
        }
        return supervisor.finish(ran);
    }
}

impl Supervisor<'_> {
    /// Runs the VM once.
    fn once(&mut self, program: &Program<'_>, told: &mut Option<Told<'_>>) -> Result<Ran, Error> {
        let path = self.keeper.directory().path().to_path_buf();
        let (mut running, mut channel) = match self.start(program) {
            Ok(started) => started,
            Err(error) => {
                self.fails(&error, told)?;
                return Ok(Ran::failed(error));
            }
        };
        let mut settling = Settling::begin();
        // Only its first start is waited with: who was there then may be gone.
        let mut expected = self.attended.take();
        if expected.is_none()
            && let Some(channel) = &mut channel
        {
            channel.release();
        }
        loop {
            let log = self.log.as_ref().and_then(|log| log.due(Moment::now()));
            let log = log.map(|due| Instant::now() + due);
            let due = channel.as_ref().and_then(Channel::due);
            let slots = channel.iter().flat_map(Channel::slots);
            let slots = slots.chain(self.audience.iter().flat_map(Audience::slots));
            let checks = self.checks.as_ref();
            let slots = slots.chain(checks.into_iter().flat_map(Checks::slots));
            let due = due.into_iter().chain(checks.and_then(Checks::due));
            let meets = self.audience.as_ref().and_then(Audience::due);
            let due = due.chain(log).chain(meets).chain(settling.due()).min();
            let slots = slots.chain(expected.map(Slot::broken));
            let slots = slots.chain(self.nap.as_ref().map(Nap::slot));
            let idle = self.idle.as_ref().map(Idleness::due);
            let due = due.into_iter().chain(idle).min();
            let woken = running
                .wait(&self.signals, slots, due)
                .map_err(Error::file(&path))?;
            if running.is_new() {
                self.go_on(&mut running)?;
                match &mut channel {
                    Some(channel) => {
                        channel.vm_runs();
                        running.ask_for_interfaces();
                    }
                    None => self.runs(told)?,
                }
            }
            while let Some(state) = running.next_state() {
                self.heed(state, &mut running, channel.as_mut())?;
            }
            if let (Some(channel), Some(interfaces)) = (&mut channel, running.interfaces()) {
                channel.renew(&interfaces);
            }
            while let Some(sent) = self.signals.next_sent().map_err(Error::file(&path))? {
                if sent.signal == GO_ON {
                    continue;
                }
                self.stop(sent.into(), Manner::Usual, &mut running, channel.as_mut())?;
            }
            self.attend(&mut running, channel.as_mut(), told)?;
            self.expect(&mut expected, &mut running);
            self.look_for_idleness(&mut running, channel.as_ref());
            running.go_on_cutting();
            settling.look();
            if woken.has_ended {
                break;
            }
        }
        self.read_rest(&mut running, channel.as_mut(), told)?;
        let mut ran = running.ended().map_err(Error::file(&path))?;
        if std::mem::take(&mut self.killed) {
            ran.code = 128 + libc::SIGKILL as u8;
        }
        if let Some((code, error)) = channel.and_then(|channel| channel.outcome()) {
            ran.code = code;
            ran.error = error.or(ran.error);
        }
        let why = match self.stopped {
            true => "it was stopped before it ran",
            false => "the VM has ended before it ran",
        };
        if !ran.started {
            ran.error.get_or_insert_with(|| why.into());
        }
        self.fails(ran.error.as_deref().unwrap_or(why), told)?;
        Ok(ran)
    }

    /// Starts the program, and listens to its guest.
    fn start(&mut self, program: &Program<'_>) -> Result<(Running, Option<Channel>), String> {
        let restores = std::mem::take(&mut self.restores);
        let listen = |spec| match restores {
            true => Channel::resume(self.keeper.directory(), spec),
            false => Channel::listen(self.keeper.directory(), spec),
        };
        let channel = program.channel.as_ref().map(listen).transpose();
        let channel = channel.map_err(|error| format!("the guest could not be heard: {error}"))?;
        let (lock, directory) = (self.keeper.lock(), self.keeper.directory());
        let how = self.starter.how(restores, self.resumes);
        let running = Running::start(program, how, &mut self.starter, lock, directory);
        let running = running
            .map_err(|error| format!("the program that runs VMs cannot be started: {error}"))?;
        Ok((running, channel))
    }

    /// It runs, which is told.
    fn runs(&mut self, told: &mut Option<Told<'_>>) -> Result<(), Error> {
        self.checks = self.check.as_ref().map(Checks::new);
        if self.checks.is_some() {
            self.keeper.health(Some(Health::Starting.name()))?;
        }
        self.keeper.running()?;
        self.idle = self.idle_for.map(Idleness::new);
        let event = match std::mem::take(&mut self.resumed) {
            true => "resume",
            false => "start",
        };
        match self.woken_by.take() {
            Some(why) => self.tell(event, [("reason", why.into())]),
            None => self.tell(event, []),
        }
        if self.checks.is_none() {
            self.is_well();
        }
        if let Some(told) = told.take() {
            told(Step::Runs);
        }
        // It has heard its guest say no more than that by now.
        if let Some(confine) = self.confine.take()
            && let Err(error) = confine()
        {
            log::warn!("the supervisor keeps rights that it does not need: {error}");
        }
        Ok(())
    }

    /// Tells whoever waits for it.
    fn is_well(&mut self) {
        if let Some(well) = self.well.take() {
            well();
        }
    }

    /// An event that is not told is no reason to end a VM.
    fn tell<const N: usize>(&self, event: &str, attributes: [(&str, String); N]) {
        let id = self.keeper.id();
        let name: Option<Name> = self.book.name_of(id).ok().flatten();
        if let Err(error) = self.book.tell(event, id, name.as_ref(), attributes) {
            log::warn!("the event `{event}` is not told: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
