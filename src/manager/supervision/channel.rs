//! The channel to the agent in a guest: it is told its service, has its streams handed over and tells how it has ended.
//!
//! The first that connects is the agent, which does so before anything else can run in its guest; nobody else is heard. It
//! may say what it likes: it has a time limit for each thing that it must do, and what it must not do ends it.

use super::Stream;
use super::dial::VSOCK;
use super::ending::FAILED;
use super::renewal::Renewal;
use super::socket::{Listener, slot_of};
use super::timekeeping::{Correction, Timekeeping};
use kvmlet_control::agent::channel::{
    AGENT_PORT, Client, Ended, Event, Fault, Output, ProcessSpec, Request, Role, StopStep,
};
use kvmlet_control::agent::{Agent, AgentError, readable};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How long a guest has to power off once its service has ended, or to end once its agent is gone.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long a guest has, beyond the time of its service, to kill that and to tell.
const KILLING: Duration = Duration::from_secs(5);

/// How many random numbers a guest is given that stood still, in bytes: as many as its kernel's generator takes for a new seed.
const ENTROPY: usize = 32;

/// What is told over a channel.
pub struct ChannelSpec<'a> {
    /// The service.
    pub service: &'a ProcessSpec,
    /// How long the guest may take until its service runs.
    pub patience: Duration,
    /// The service is not started before somebody is attached to it: who is expected reads from this.
    pub attended: Option<BorrowedFd<'a>>,
}

/// Something that a guest has told, in the order in which it did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// The service runs.
    Started,
    /// It wrote this.
    Wrote(Stream, &'a [u8]),
    /// It is being stopped.
    Stopping(StopStep),
    /// Its guest's clock is set.
    ClockSet(Correction),
}

/// How far a service has come, as its guest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Course {
    /// The agent has not told that it runs.
    Awaited,
    Runs,
    /// How it has ended, or why it was not started.
    Over(Result<Ended, (u8, String)>),
    /// The agent has broken a rule, or is gone.
    Broken(String),
}

pub(super) struct Channel {
    /// Until somebody has connected.
    listener: Option<Listener>,
    /// Of a guest that goes on from a snapshot: its agent has connected to somebody else long ago, and is dialled.
    renewal: Option<Renewal>,
    agent: Option<Agent>,
    description: ProcessSpec,
    patience: Duration,
    /// The agent is not told the service yet.
    held: bool,
    course: Course,
    /// When the guest's power is to be cut, and why, unless something is told before.
    deadline: Option<(Instant, String)>,
    timekeeping: Timekeeping,
}

impl Channel {
    /// Begins to listen for the agent, in the directory of an instance.
    pub fn listen(directory: &Directory, spec: &ChannelSpec<'_>) -> io::Result<Self> {
        let name = format!("{VSOCK}_{AGENT_PORT}");
        Ok(Self {
            listener: Some(Listener::new(directory, &name, 1)?),
            ..Self::new(spec)
        })
    }

    /// Takes over the agent of a guest that goes on from a snapshot, once its interfaces [are known](Self::renew).
    pub fn resume(directory: &Directory, spec: &ChannelSpec<'_>) -> io::Result<Self> {
        Ok(Self {
            renewal: Some(Renewal::new(directory, spec.service)?),
            // Its service runs.
            held: false,
            ..Self::new(spec)
        })
    }

    fn new(spec: &ChannelSpec<'_>) -> Self {
        Self {
            listener: None,
            renewal: None,
            agent: None,
            description: spec.service.clone(),
            patience: spec.patience,
            held: spec.attended.is_some(),
            course: Course::Awaited,
            deadline: None,
            timekeeping: Timekeeping::new(),
        }
    }

    /// Tells a guest that goes on from a snapshot what its machine is from now on, with these interfaces.
    pub fn renew(&mut self, interfaces: &[String]) {
        if let Some(renewal) = &mut self.renewal {
            renewal.begin(interfaces);
        }
    }

    /// The VM runs: its guest's time begins.
    pub fn vm_runs(&mut self) {
        if self.deadline.is_none() && self.course == Course::Awaited {
            let limit = self.patience;
            self.limit(limit, || {
                let seconds = limit.as_secs_f32();
                format!(
                    "the guest has not told within {seconds} s that its service runs (is its init kvmlet's?)"
                )
            });
        }
    }

    fn limit(&mut self, time: Duration, why: impl FnOnce() -> String) {
        self.deadline = Instant::now().checked_add(time).map(|at| (at, why()));
    }

    /// What is to be waited for.
    pub fn slots(&self) -> [Slot<'_>; 2] {
        [self.slot(), self.timekeeping.slot()]
    }

    fn slot(&self) -> Slot<'_> {
        match (&self.listener, &self.renewal, &self.agent) {
            (Some(listener), ..) => listener.slot(),
            (None, _, Some(agent)) => slot_of(agent),
            (None, Some(renewal), None) => renewal.slot(),
            (None, None, None) => Slot::NOTHING,
        }
    }

    /// When something is due by itself.
    pub fn due(&self) -> Option<Instant> {
        let deadline = self.deadline.as_ref().map(|(at, _)| *at);
        let clock = self.runs().then(|| self.timekeeping.due());
        let listening = self.listener.as_ref().and_then(Listener::due);
        let dialling = self.renewal.as_ref().and_then(Renewal::due);
        let listening = listening.or(dialling);
        deadline.into_iter().chain(clock).chain(listening).min()
    }

    /// Why the guest's power is to be cut now, if it is.
    pub fn overdue(&mut self) -> Option<String> {
        if let Course::Broken(why) = &self.course
            && self.agent.take().is_some()
        {
            return Some(why.clone());
        }
        let (_, why) = self.deadline.take_if(|(at, _)| *at <= Instant::now())?;
        let is_over = matches!(self.course, Course::Over(_));
        // A service that does not end when it is stopped ends as its VM does.
        if self.course == Course::Awaited || (self.agent.is_none() && !is_over) {
            self.course = Course::Broken(why.clone());
        }
        Some(why)
    }

    /// The exit code of the service, if its guest has told it, and what was wrong.
    pub fn outcome(&self) -> Option<(u8, Option<String>)> {
        match &self.course {
            Course::Awaited | Course::Runs => None,
            Course::Over(Ok(ended)) => Some((ended.exit_code(), None)),
            Course::Over(Err((code, why))) => Some((*code, Some(why.clone()))),
            Course::Broken(why) => Some((FAILED, Some(why.clone()))),
        }
    }

    /// Asks the guest to stop its service, by another signal and within another time than it was described with if they are
    /// given. It has `time` to end. False if there is no service to be stopped.
    pub fn stop(&mut self, signal: Option<u8>, timeout: Option<Duration>, time: Duration) -> bool {
        let (Course::Runs, Some(agent)) = (&self.course, &mut self.agent) else {
            return false;
        };
        let timeout_ms = timeout.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        let asked = agent
            .client()
            .request(&Request::Stop { signal, timeout_ms });
        if asked.is_ok() {
            let limit = time.saturating_add(KILLING);
            self.limit(limit, || "the guest has not stopped its service".into());
        }
        asked.is_ok()
    }

    /// Does the service run?
    pub fn runs(&self) -> bool {
        self.course == Course::Runs
    }

    /// Does what can be done without waiting.
    pub fn turn(&mut self, told: &mut dyn FnMut(Told<'_>)) {
        if let Err(why) = self.advance(told) {
            self.course = match &self.course {
                // Its last word is said.
                over @ Course::Over(_) => over.clone(),
                _ => Course::Broken(why),
            };
        }
        if self.timekeeping.has_jumped() {
            self.stood_still();
        } else if self.timekeeping.due() <= Instant::now() {
            self.ask_for_clock();
        }
    }

    /// The VM stood still, or the host did: its guest does not know what time it is, and what it takes for random may be known
    /// to others, if it is a copy.
    pub fn stood_still(&mut self) {
        let mut bytes = [0; ENTROPY];
        let (Course::Runs, Some(agent)) = (&self.course, &mut self.agent) else {
            return;
        };
        if getrandom(&mut bytes, GetRandomFlags::NONBLOCK) == Ok(ENTROPY) {
            let _ = agent
                .client()
                .request(&Request::AddEntropy { bytes: &bytes });
        }
        self.ask_for_clock();
    }

    fn ask_for_clock(&mut self) {
        self.timekeeping.asks();
        if let (Course::Runs, Some(agent)) = (&self.course, &mut self.agent) {
            // One that takes nothing any more is asked again.
            let _ = agent.client().request(&Request::ReadClock);
        }
    }

    /// The service may be started.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.held)
            && let Err(why) = self.describe()
        {
            self.course = Course::Broken(why);
        }
    }

    fn describe(&mut self) -> Result<(), String> {
        match &mut self.agent {
            Some(agent) if !self.held => {
                let asked = agent.client().start(&self.description, Role::Service);
                asked.map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    /// What is said to the agent, while it is heard.
    pub fn client(&mut self) -> Option<&mut Client> {
        self.agent.as_mut().map(Agent::client)
    }

    /// Sends the service a signal, once it is taken over; false if there is no service.
    pub fn signal(&mut self, signal: u8, group: bool) -> bool {
        let request = Request::Signal { signal, group };
        match (&self.course, &mut self.agent, &mut self.renewal) {
            (Course::Runs, Some(agent), _) => agent.client().request(&request).is_ok(),
            (Course::Awaited, _, Some(renewal)) => renewal.hold(signal, group),
            _ => false,
        }
    }

    /// How the service has ended, as far as its guest tells.
    pub fn end(&self) -> Option<&Result<Ended, (u8, String)>> {
        match &self.course {
            Course::Over(end) => Some(end),
            _ => None,
        }
    }

    /// What rule its guest has broken.
    pub fn broken(&self) -> Option<&str> {
        match &self.course {
            Course::Broken(why) => Some(why),
            _ => None,
        }
    }

    fn advance(&mut self, told: &mut dyn FnMut(Told<'_>)) -> Result<(), String> {
        if let Some(listener) = &mut self.listener {
            let Some(stream) = listener.accept() else {
                return Ok(());
            };
            // Whoever comes later is not the agent.
            self.listener = None;
            self.agent = Some(Agent::new(stream));
            self.describe()?;
        }
        if let Some(renewal) = &mut self.renewal
            && (self.agent.is_none() || renewal.is_late())
        {
            self.agent = renewal.turn();
        }
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let turned = agent.turn();
        self.hear(told)?;
        match turned {
            Ok(()) => Ok(()),
            Err(AgentError::Gone) => {
                self.agent = None;
                if let Some(renewal) = &mut self.renewal {
                    // It may have been reset with the connections of the VM that was saved.
                    renewal.again();
                    return Ok(());
                }
                if !matches!(self.course, Course::Over(_)) {
                    let why = "the guest has closed its channel, and goes on";
                    self.limit(LAST_WORDS, || why.into());
                }
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes what the agent has said.
    fn hear(&mut self, told: &mut dyn FnMut(Told<'_>)) -> Result<(), String> {
        loop {
            let Some(agent) = &mut self.agent else {
                return Ok(());
            };
            let client = agent.client();
            let event = client.next_event().map_err(|error| error.to_string())?;
            match event {
                None => return Ok(()),
                Some(Event::Started { .. }) => {
                    self.course = Course::Runs;
                    self.deadline = None;
                    if let Some(renewal) = self.renewal.take() {
                        renewal.pass_signal_on(client);
                    }
                    told(Told::Started);
                }
                Some(Event::Output { output, bytes }) => {
                    let stream = match output {
                        Output::Stdout => Stream::Stdout,
                        Output::Stderr => Stream::Stderr,
                    };
                    // Whoever takes it says when it is taken.
                    told(Told::Wrote(stream, bytes));
                }
                Some(Event::Stopping { step }) => told(Told::Stopping(step)),
                Some(Event::Clock { realtime_ns, .. }) => {
                    let guest = Duration::from_nanos(realtime_ns);
                    if let Some(set) = self.timekeeping.answered(guest) {
                        let realtime_ns = u64::try_from(set.to.as_nanos()).unwrap_or(u64::MAX);
                        let asked = client.request(&Request::SetClock { realtime_ns });
                        if asked.is_ok() {
                            told(Told::ClockSet(set));
                        }
                    }
                }
                Some(Event::Exited { ended }) => self.over(Ok(ended)),
                Some(Event::Failed { fault, message }) => {
                    let why = format!("the guest cannot {}", readable(message));
                    match fault {
                        Fault::Start { exit_code } => self.over(Err((exit_code, why))),
                        Fault::Request => log::warn!("{why}"),
                        _ => return Err(why),
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn over(&mut self, end: Result<Ended, (u8, String)>) {
        self.course = Course::Over(end);
        if let Some(agent) = &mut self.agent {
            // One that does not listen any more has its power cut.
            let _ = agent.client().request(&Request::PowerOff);
        }
        self.limit(LAST_WORDS, || "the guest does not power off".into());
    }
}
