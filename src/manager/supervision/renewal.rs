//! The agent of a guest that goes on from a snapshot: it has nobody whom it could connect to any more, so it is dialled, told
//! what its machine is from now on, and its service is taken over.

use super::dial::Dialling;
use kvmlet_control::agent::Agent;
use kvmlet_control::agent::channel::{Client, ProcessSpec, Request};
use kvmlet_spec::NetworkSpec;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two tries: where guest kernels are interpreted, theirs take as long to hear of the first.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the first try waits for all its answers, and each further one twice as long: what was asked for while the guest gives up
/// its old connections is lost with them, and it may not tell.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many random numbers it is given, in bytes, for a kernel that has not renewed them itself.
const ENTROPY: usize = 32;

pub(super) struct Renewal {
    directory: Directory,
    /// The machine, as it is from now on.
    machine: ProcessSpec,
    dialling: Option<Dialling>,
    /// When it is dialled next, unless it has answered all before; none before its interfaces are known.
    due: Option<Instant>,
    patience: Duration,
    /// What the service is to be sent once it is taken over, to whom, or to its group.
    signal: Option<(u8, bool)>,
}

impl Renewal {
    /// Of a guest whose service, and its machine, are described so.
    pub fn new(directory: &Directory, service: &ProcessSpec) -> io::Result<Self> {
        Ok(Self {
            directory: directory.try_clone()?,
            machine: ProcessSpec {
                hostname: service.hostname.clone(),
                hosts: service.hosts.clone(),
                ..ProcessSpec::default()
            },
            dialling: None,
            due: None,
            patience: PATIENCE,
            signal: None,
        })
    }

    /// Keeps a signal for the service, which runs and cannot be told yet. One only: who sends another does not want to wait.
    pub fn hold(&mut self, signal: u8, group: bool) -> bool {
        let is_first = self.signal.is_none();
        self.signal.get_or_insert((signal, group));
        is_first
    }

    /// The service was taken over.
    pub fn pass_signal_on(self, client: &mut Client) {
        if let Some((signal, group)) = self.signal
            && let Err(error) = client.request(&Request::Signal { signal, group })
        {
            log::warn!("the service is not sent signal {signal}: {error}");
        }
    }

    /// Its VM runs, and has these interfaces.
    pub fn begin(&mut self, interfaces: &[String]) {
        let specs = interfaces.iter().map(|text| {
            let spec = NetworkSpec::from_parameter_value(text);
            spec.inspect_err(|error| log::warn!("an interface is not understood: {error}"))
        });
        self.machine.networks = specs.filter_map(Result::ok).collect();
        self.due = Some(Instant::now());
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        let dialling = self.dialling.as_ref();
        dialling.map_or(Slot::NOTHING, Dialling::slot)
    }

    /// When something is to be done without that.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whoever answered is gone.
    pub fn again(&mut self) {
        (self.dialling, self.due) = (None, Some(Instant::now() + PAUSE));
    }

    /// Has it not answered all in time?
    pub fn is_late(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Does what can be done without waiting; returns the agent once it answers, which is asked for all.
    pub fn turn(&mut self) -> Option<Agent> {
        if self.is_late() {
            match Dialling::begin(&self.directory) {
                Ok(dialling) => {
                    let due = Instant::now() + self.patience;
                    self.patience *= 2;
                    (self.dialling, self.due) = (Some(dialling), Some(due));
                }
                Err(_) => self.again(),
            }
        }
        match self.dialling.as_mut()?.turn() {
            Ok(false) => None,
            Ok(true) => {
                let mut agent = self.dialling.take()?.agent();
                if let Err(error) = self.ask(&mut agent) {
                    log::warn!("the guest is not told that it was restored: {error}");
                }
                Some(agent)
            }
            Err(_) => {
                self.again();
                None
            }
        }
    }

    /// Random numbers first, which all else may be made of; the service last: when that is answered, all is done.
    fn ask(&self, agent: &mut Agent) -> Result<(), kvmlet_control::agent::AgentError> {
        let client = agent.client();
        let mut bytes = [0; ENTROPY];
        if getrandom(&mut bytes, GetRandomFlags::NONBLOCK) == Ok(ENTROPY) {
            client.request(&Request::AddEntropy { bytes: &bytes })?;
        }
        if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
            let realtime_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            client.request(&Request::SetClock { realtime_ns })?;
        }
        client.renew(&self.machine)?;
        client.attach();
        Ok(())
    }
}
