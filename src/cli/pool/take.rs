//! `kvmlet pool take`: a VM of a pool goes on, with this process's streams.

use super::{name, warm};
use crate::boot::end_code;
use crate::instances::book;
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_control::{LONGEST, Order, Received, Report, Request, Taken};
use kvmlet_manager::{Name, Pools, PoolsError};
use kvmlet_run::RawTerminal;
use kvmlet_spec::Reason;
use kvmlet_sys::output::write_whole;
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::stdio::{stderr, stdin, stdout};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a pool that is empty may take to restore one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ctrl-], as of `kvmlet boot`.
const ESCAPE: u8 = 0x1d;
/// A pipe that can be written to takes this much without waiting (PIPE_BUF in pipe(7)).
const AT_ONCE: usize = 4096;

/// Take a VM of a pool, and have it go on in the foreground.
///
/// This ends with its exit code, and the VM with this. Ctrl-] ends it from the keyboard. A pool that is empty is waited for,
/// unless it cannot have any more. One of an image has an instance go on in the background, and its id is printed.
#[derive(Args)]
pub(super) struct Take {
    /// What an instance is called from then on.
    #[arg(long = "name", value_name = "NAME", value_parser = name)]
    called: Option<Name>,
    /// The pool's name.
    #[arg(value_name = "POOL", value_parser = name)]
    name: Name,
}

impl Take {
    pub fn run(self) -> Outcome {
        let pools = Pools::of(&book()?)?;
        if let Some(pool) = pools.of_image(&self.name)? {
            let id = warm::take(&pools, pool, self.called.as_ref())?;
            // It runs, whoever hears of it.
            kvmlet_command::print_name(&id, "instance runs:");
            return Ok(0);
        }
        if self.called.is_some() {
            return Err(
                Failed::new("VMs of this pool are no instances, and have no names")
                    .help("leave out --name"),
            );
        }
        let mut pool = pools.connect(&self.name)?;
        // From here on they are the VM's.
        let signals = Signals::take(&ENDING).map_err(Failed::new)?;
        let taken = pool.take(PATIENCE).map_err(|source| PoolsError::Refused {
            name: self.name,
            source,
        })?;
        drop(pool);
        let Taken {
            channel,
            input,
            output,
            log,
            ..
        } = taken;
        ioctl_fionbio(&input, true).map_err(|error| Failed::new(io::Error::from(error)))?;
        Session {
            channel,
            input: Some(input),
            output: Some(output),
            log: Some(log),
            typed: Vec::new(),
            said: Vec::new(),
            signals,
            terminal: RawTerminal::enter(),
            wish: None,
            asked: 0,
            outcome: None,
        }
        .run()
    }
}

/// Who wants the end.
#[derive(Clone, Copy)]
enum Wish {
    Signal(libc::c_int),
    Escape,
}

struct Session {
    channel: kvmlet_control::Channel,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    log: Option<OwnedFd>,
    /// What was read and is not passed on yet.
    typed: Vec<u8>,
    said: Vec<u8>,
    signals: Signals,
    terminal: Option<RawTerminal>,
    wish: Option<Wish>,
    /// The number of the last request.
    asked: u32,
    /// How the VM has ended; none of a supervisor that was killed.
    outcome: Option<Option<Box<kvmlet_spec::Outcome>>>,
}

impl Session {
    /// Passes everything on until the VM has ended, and all that it has said is printed.
    fn run(mut self) -> Outcome {
        while self.outcome.is_none() || self.output.is_some() || !self.said.is_empty() {
            let [told, signalled, typed, said, logged] = self.wait().map_err(Failed::new)?;
            while let Some(signal) = self.signals.next().map_err(Failed::new)? {
                debug_assert!(signalled);
                self.wish = Some(Wish::Signal(signal));
                self.stop((signal == libc::SIGQUIT).then_some(0));
            }
            if typed {
                self.type_in();
            }
            if said {
                self.print().map_err(Failed::new)?;
            }
            if logged {
                self.print_log();
            }
            if told {
                self.hear();
            }
        }
        self.print_log();
        drop(self.terminal.take());
        let Some(Some(mut outcome)) = self.outcome else {
            return Err(Failed::new("the VM's supervisor was killed"));
        };
        if let (Reason::Stopped, Some(wish)) = (outcome.reason, self.wish) {
            *outcome = match wish {
                Wish::Signal(signal) => kvmlet_spec::Outcome::new(Reason::Signal).signal(signal),
                Wish::Escape => kvmlet_spec::Outcome::new(Reason::Escape),
            };
        }
        Ok(end_code(&outcome))
    }

    fn wait(&self) -> io::Result<[bool; 5]> {
        let or_nothing = |fd: Option<_>| fd.map_or(Slot::NOTHING, Slot::readable);
        let typed = match &self.input {
            None => Slot::NOTHING,
            Some(input) if !self.typed.is_empty() => Slot::writable(input.as_fd()),
            // Elsewhere than in its foreground a terminal must not be read.
            Some(_) if self.terminal.is_none() && io::stdin().is_terminal() => Slot::NOTHING,
            Some(_) => Slot::readable(stdin()),
        };
        let said = match self.said.is_empty() {
            true => or_nothing(self.output.as_ref().map(AsFd::as_fd)),
            false => Slot::writable(stdout()),
        };
        let told = match self.outcome {
            None => Slot::readable(self.channel.as_fd()),
            Some(_) => Slot::NOTHING,
        };
        let slots = [
            told,
            Slot::readable(self.signals.as_fd()),
            typed,
            said,
            or_nothing(self.log.as_ref().map(AsFd::as_fd)),
        ];
        wait::any(slots, Until::Forever)
    }

    fn stop(&mut self, patience_ms: Option<u32>) {
        self.asked += 1;
        let request = Request {
            number: self.asked,
            order: Order::Stop { patience_ms },
        };
        // A supervisor that is gone is noticed by what it does not tell.
        let _ = self.channel.try_send(&request.encode());
    }

    fn hear(&mut self) {
        match self.channel.receive(LONGEST) {
            Received::None => {}
            Received::Last => self.outcome = Some(None),
            Received::One(message) => {
                if let Ok(Report::Ended(outcome)) = Report::decode(&message) {
                    self.outcome = Some(Some(outcome));
                }
            }
        }
    }

    fn type_in(&mut self) {
        let Some(input) = &self.input else {
            return;
        };
        if self.typed.is_empty() {
            let mut bytes = [0; AT_ONCE];
            match read(stdin(), &mut bytes) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => self.input = None,
                Ok(count) => self.typed = bytes[..count].to_vec(),
            }
            let escape = self.typed.iter().position(|byte| *byte == ESCAPE);
            if let (Some(place), true) = (escape, self.terminal.is_some()) {
                self.typed.truncate(place);
                self.wish = Some(Wish::Escape);
                self.stop(None);
            }
            return;
        }
        match write(input, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input = None,
        }
    }

    /// Prints what there is room for, or reads more of it.
    fn print(&mut self) -> io::Result<()> {
        if let (true, Some(output)) = (self.said.is_empty(), &self.output) {
            let mut bytes = [0; AT_ONCE];
            match read(output, &mut bytes) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => self.output = None,
                Ok(count) => self.said = bytes[..count].to_vec(),
            }
            if !wait::one(Slot::writable(stdout()), Until::Now)? {
                return Ok(());
            }
        }
        match write(stdout(), &self.said) {
            Ok(count) => drop(self.said.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody reads any more. The guest goes on, as one that is piped into nothing.
            Err(_) => self.said.clear(),
        }
        Ok(())
    }

    /// What its supervisor has to say, as far as it has come.
    fn print_log(&mut self) {
        let Some(log) = &self.log else {
            return;
        };
        let mut bytes = [0; AT_ONCE];
        while wait::one(Slot::readable(log.as_fd()), Until::Now).unwrap_or(false) {
            match read(log, &mut bytes) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => {
                    self.log = None;
                    return;
                }
                Ok(count) => drop(write_whole(stderr(), &bytes[..count])),
            }
        }
    }
}
