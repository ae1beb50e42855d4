//! The guest's one service, as the agent knows it: whose connection it is on, how it is stopped, and how the guest ends with it.

use alloc::vec::Vec;
use core::net::IpAddr;

use kvmlet_contract::GuestSpec;
use kvmlet_contract::channel::{Description, Ended, StopStep};
use linux_raw_sys::general::{SIGKILL, SIGTERM};

use super::process::Process;
use crate::supervise::Stopping;
use crate::sys::{self, Pid};
use crate::{Failure, console};

/// How long the host may take for the last words of a service before the guest powers off without it, counted from what the
/// host last said.
const LAST_WORDS_MS: u64 = 10_000;

/// The guest's one service.
pub struct Service {
    /// Those of its machine.
    addresses: Vec<IpAddr>,
    process: Option<Process>,
    /// Counts connections that had it: only the last one has it still.
    attached: u32,
    stop_signal: u8,
    stop_timeout_ms: u64,
    stopping: Option<Stopping>,
    /// A step of its stop that is still to be told.
    step: Option<StopStep>,
    /// The guest's exit code, once there is one.
    code: Option<u8>,
    /// Its end is still to be told.
    untold: bool,
    /// When the guest ends whatever the host does.
    deadline_ms: u64,
}

impl Service {
    /// One that is not described yet.
    pub fn new(guest: &GuestSpec) -> Self {
        let addresses = guest.networks.iter().map(|network| network.address);
        Self {
            addresses: addresses.collect(),
            process: None,
            attached: 0,
            stop_signal: SIGTERM as u8,
            stop_timeout_ms: u64::from(guest.stop_timeout_s()) * 1000,
            stopping: None,
            step: None,
            code: None,
            untold: false,
            deadline_ms: 0,
        }
    }

    /// Whether there was none yet.
    pub fn is_awaited(&self) -> bool {
        self.process.is_none() && self.code.is_none()
    }

    /// Makes the next connection the one that has the service; returns its number.
    pub fn attach(&mut self) -> u32 {
        self.attached = self.attached.wrapping_add(1);
        self.attached
    }

    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its machine has these from now on.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    pub fn is_attached(&self, number: u32) -> bool {
        self.attached == number
    }

    /// It runs.
    pub fn started(&mut self, process: Process, description: &Description<'_>) -> u32 {
        self.stop_signal = description.stop_signal.unwrap_or(self.stop_signal);
        let timeout = description.stop_timeout_ms.map(u64::from);
        self.stop_timeout_ms = timeout.unwrap_or(self.stop_timeout_ms);
        self.process = Some(process);
        self.attach()
    }

    /// It does not run, and never will.
    pub fn failed(&mut self, failure: &Failure) -> u32 {
        console::say(format_args!("cannot {}", failure.message));
        self.end(failure.code);
        self.attach()
    }

    pub fn process_of(&self, number: u32) -> Option<&Process> {
        self.process.as_ref().filter(|_| self.attached == number)
    }

    pub fn process_of_mut(&mut self, number: u32) -> Option<&mut Process> {
        let attached = self.attached == number;
        self.process.as_mut().filter(|_| attached)
    }

    /// The host is still there: it has said something.
    pub fn renew(&mut self) {
        if self.code.is_some() {
            self.deadline_ms = sys::monotonic_ms() + LAST_WORDS_MS;
        }
    }

    fn end(&mut self, code: u8) {
        self.code = Some(code);
        self.renew();
    }

    pub fn pid(&self) -> Option<Pid> {
        let process = self.process.as_ref().filter(|_| self.code.is_none())?;
        Some(process.pid)
    }

    /// Sends it a signal that init was sent.
    pub fn forward(&self, signal: i32) {
        if let Some(pid) = self.pid() {
            // It fails only if the service has just ended, which SIGCHLD tells next.
            let _ = sys::kill(pid, signal);
        }
    }

    /// Has it end: by a signal, and in the end by SIGKILL. Later wishes change nothing.
    pub fn stop(&mut self, by_host: bool, signal: Option<u8>, timeout_ms: Option<u32>) {
        match self.pid() {
            Some(pid) if self.stopping.is_none() => {
                let signal = signal.unwrap_or(self.stop_signal);
                let timeout_ms = timeout_ms.map_or(self.stop_timeout_ms, u64::from);
                let stopping = Stopping::begin(pid, by_host, signal, timeout_ms);
                self.step = Some(if stopping.killed() {
                    StopStep::Killed
                } else {
                    StopStep::Signalled { signal }
                });
                self.stopping = Some(stopping);
            }
            // As one that was sent SIGTERM at once.
            None if self.is_awaited() => self.end(128 + SIGTERM as u8),
            _ => {}
        }
    }

    /// It was reaped, with this status.
    pub fn reaped(&mut self, status: i32) {
        let forgiven = self.stopping.as_ref().is_some_and(|it| it.forgives(status));
        let ended = if forgiven {
            Ended::Code(0)
        } else {
            Ended::from_wait_status(status)
        };
        if let Some(process) = &mut self.process {
            process.has_ended(ended);
        }
        self.untold = true;
        self.end(ended.exit_code());
    }

    /// How long nothing happens by itself.
    pub fn left_ms(&self) -> Option<u64> {
        if self.code.is_some() {
            return Some(self.deadline_ms.saturating_sub(sys::monotonic_ms()));
        }
        self.stopping.as_ref().map(Stopping::left_ms)
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let Some(pid) = self.pid() else { return };
        if let Some(stopping) = &mut self.stopping
            && stopping.left_ms() == 0
        {
            if stopping.killed() {
                // A disk that does not answer keeps it.
                return self.reaped(SIGKILL as i32);
            }
            stopping.kill(pid);
            self.step = Some(StopStep::Killed);
        }
    }

    /// A step of its stop that is to be told.
    pub fn next_step(&mut self) -> Option<StopStep> {
        self.step.take()
    }

    /// How it has ended, if that is to be told now.
    pub fn last_word(&mut self) -> Option<Ended> {
        let ended = self.process.as_ref()?.over().filter(|_| self.untold)?;
        self.untold = false;
        Some(ended)
    }

    /// The host knows all; false if the service has not ended yet.
    pub fn power_off(&mut self) -> bool {
        self.deadline_ms = 0;
        self.code.is_some()
    }

    /// The guest's exit code, when it is to end.
    pub fn outcome(&self) -> Option<u8> {
        self.code.filter(|_| self.left_ms() == Some(0))
    }
}
