//! The process of a VM, as this one sees it: `kvmlet`, started before it is known what it will run, so that none of that is
//! waited for when the VM is to start.

use super::fault::Fault;
use kvmlet_command::beside;
use kvmlet_control::{Channel, LONGEST, Order, Received, Report, Request};
use kvmlet_spec::VmConfig;
use kvmlet_sys::process::{self, Child, Ended, keep};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

/// How long a VM may take to end when its power is cut.
const ENDING: Duration = Duration::from_secs(20);

/// What a VM's process is started with, whatever it runs.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Where messages go, instead of standard error.
    pub log: Option<File>,
    /// Where the guest's serial port goes, instead of standard output. What it reads comes from standard input all the same.
    pub output: Option<File>,
    /// How much is said, as kvmlet's flags: 0 for warnings, 1 for what happens, 2 for details.
    pub verbosity: u8,
    /// Who answers the guest at an address, by the number of its interface.
    pub answered: Vec<(usize, Ipv4Addr, OwnedFd)>,
}

/// A process that runs a VM, or is going to.
#[derive(Debug)]
pub struct Vmm {
    child: Child,
    channel: Channel,
    /// Where its configuration goes, until that has been told.
    configuration: Option<File>,
    asked: u32,
}

/// What a VM tells.
#[derive(Debug)]
pub enum Event {
    /// Something, perhaps with a descriptor.
    Told(Report, Option<OwnedFd>),
    /// Its process has ended, and had nothing more to tell.
    Gone(Ended),
}

impl Vmm {
    /// A process that waits for its configuration.
    pub fn prepare(surroundings: &Surroundings) -> Result<Self, Fault> {
        let (reader, writer) = io::pipe().map_err(no_host)?;
        let words = |fd: RawFd| {
            vec![
                "boot".into(),
                "--config".into(),
                format!("/proc/self/fd/{fd}"),
            ]
        };
        let mut vmm = Self::start(words, surroundings, Some(reader.into()))?;
        vmm.configuration = Some(OwnedFd::from(writer).into());
        Ok(vmm)
    }

    /// A VM that goes on from a file.
    pub fn restore(
        file: &Path,
        words: Vec<String>,
        paused: bool,
        surroundings: &Surroundings,
    ) -> Result<Self, Fault> {
        let file = file
            .to_str()
            .ok_or_else(|| Fault("The path of the memory is not UTF-8.".into()))?;
        let all = |_| {
            let paused = paused.then(|| "--paused".to_owned());
            let verb = std::iter::once("restore".to_owned()).chain(paused);
            verb.chain(words)
                .chain(["--".to_owned(), file.to_owned()])
                .collect()
        };
        Self::start(all, surroundings, None)
    }

    fn start(
        words: impl FnOnce(RawFd) -> Vec<String>,
        surroundings: &Surroundings,
        input: Option<OwnedFd>,
    ) -> Result<Self, Fault> {
        let (channel, theirs) = Channel::pair().map_err(no_host)?;
        let theirs = OwnedFd::from(theirs);
        let kept: Vec<RawFd> = std::iter::once(&theirs)
            .chain(&input)
            .chain(surroundings.answered.iter().map(|(.., socket)| socket))
            .map(AsRawFd::as_raw_fd)
            .collect();
        let mut words = words(input.as_ref().map_or(-1, AsRawFd::as_raw_fd)).into_iter();
        let mut command =
            beside::find(beside::KVMLET).map_err(|failed| Fault(failed.first_line()))?;
        for _ in 0..surroundings.verbosity {
            command.arg("--verbose");
        }
        // Its verb comes first, and who its messages go to before what may end the flags.
        command.args(words.next());
        command
            .arg("--channel-fd")
            .arg(theirs.as_raw_fd().to_string());
        for (interface, address, socket) in &surroundings.answered {
            let socket = socket.as_raw_fd();
            command.arg("--metadata");
            command.arg(format!("{interface},{socket},{address}"));
        }
        command.args(words);
        if let Some(file) = &surroundings.output {
            command.stdout(file.try_clone().map_err(no_host)?);
        }
        if let Some(file) = &surroundings.log {
            command.stderr(file.try_clone().map_err(no_host)?);
        }
        let prepare = move || {
            // It ends with this process, at once, and clears away what it has of the host.
            set_parent_process_death_signal(Some(Signal::QUIT))?;
            kept.iter().try_for_each(|fd| keep(*fd))
        };
        // SAFETY: between fork and exec it makes system calls, and touches no memory but its own.
        unsafe { command.pre_exec(prepare) };
        let child = process::spawn(&mut command).map_err(no_host)?;
        Ok(Self {
            child,
            channel,
            configuration: None,
            asked: 0,
        })
    }

    /// Tells a process that waits for it which VM it is to run.
    pub fn configure(&mut self, config: &VmConfig) -> Result<(), Fault> {
        let json = config.to_json().map_err(|error| Fault::of(&error))?;
        let Some(mut pipe) = self.configuration.take() else {
            return Err(Fault("The VM has its configuration already.".into()));
        };
        pipe.write_all(json.as_bytes()).map_err(no_host)
    }

    /// Asks for something, and returns the number that its answer will have.
    pub fn ask(&mut self, order: Order) -> u32 {
        self.asked = self.asked.wrapping_add(1).max(1);
        let number = self.asked;
        // One that is gone is noticed by who waits for its answer.
        let _ = self.channel.send(&Request { number, order }.encode());
        number
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> [Slot<'_>; 2] {
        [self.channel.as_fd(), self.child.as_fd()].map(Slot::readable)
    }

    /// What it tells next, if it tells anything now. With its end it is gone.
    pub fn next(self) -> (Option<Self>, Option<Event>) {
        loop {
            return match self.channel.receive_with(LONGEST) {
                (Received::One(message), descriptor) => match Report::decode(&message) {
                    Ok(report) => (Some(self), Some(Event::Told(report, descriptor))),
                    // Whoever has taken a VM over may send what is none.
                    Err(_) => continue,
                },
                (Received::None, _) => (Some(self), None),
                (Received::Last, _) => match self.child.wait() {
                    Ok(ended) => (None, Some(Event::Gone(ended))),
                    Err(_) => (None, Some(Event::Gone(Ended::Killed(libc::SIGKILL)))),
                },
            };
        }
    }

    /// Cuts its power, and waits until all that was made for it is cleared away.
    pub fn end(mut self) {
        if let Some(pipe) = self.configuration.take() {
            // It has nothing yet, and is not to take that for a description.
            let _ = self.child.signal(Signal::KILL);
            drop(pipe);
        } else {
            self.ask(Order::Stop {
                patience_ms: Some(0),
            });
        }
        let gone = wait::one(Slot::readable(self.child.as_fd()), Until::after(ENDING));
        if !gone.unwrap_or(false) {
            let _ = self.child.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn no_host(error: io::Error) -> Fault {
    Fault(format!("The host gives no process for the VM: {error}"))
}
