//! A process that was started for the host, and its streams.

use kvmlet_contract::ConsoleSize;
use kvmlet_contract::channel::{Ended, Event, MAX_CREDIT, Output};
use linux_raw_sys::general::{SIGCONT, SIGHUP};

use super::buffer::Buffer;
use super::connection::Connection;
use crate::sys::{self, Errno, File, Pid};

/// How much input a process may have waiting for it, in bytes, beside what is in its pipe.
pub const INPUT_WINDOW: u32 = 16 << 10;

/// How much of a terminal's output is still taken after its process has ended, at most: a process in the background may
/// print without end.
const LAST_OF_TERMINAL: u32 = 64 << 10;

/// A process that was started for the host.
pub struct Process {
    pub pid: Pid,
    ended: Option<Ended>,
    input: Option<Input>,
    outputs: [Outlet; 2],
    terminal: bool,
    detached: bool,
}

/// Our ends of a process's streams.
#[derive(Default)]
pub struct Ends {
    pub input: Option<File>,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    /// The first two are a terminal's, one descriptor twice.
    pub terminal: bool,
    /// There are none, and nobody listens.
    pub detached: bool,
}

struct Input {
    /// Nothing once the process reads no more.
    file: Option<File>,
    waiting: Buffer,
    /// What the host may send beyond what is waiting.
    credit: u32,
    ending: bool,
}

#[derive(Default)]
struct Outlet {
    file: Option<File>,
    /// How much the host takes.
    credit: u32,
    /// How much is still read, once the process has ended.
    left: Option<u32>,
}

impl Process {
    pub fn new(pid: Pid, ends: Ends) -> Result<Self, Errno> {
        let outlet = |file| Outlet {
            file,
            ..Outlet::default()
        };
        let input = match ends.input {
            None => None,
            Some(file) => Some(Input {
                file: Some(file),
                waiting: Buffer::new(INPUT_WINDOW as usize)?,
                credit: 0,
                ending: false,
            }),
        };
        Ok(Self {
            pid,
            ended: None,
            input,
            outputs: [outlet(ends.stdout), outlet(ends.stderr)],
            terminal: ends.terminal,
            detached: ends.detached,
        })
    }

    /// It was reaped. What it has written is still to be taken, and no more than that: others may hold its streams.
    pub fn has_ended(&mut self, ended: Ended) {
        self.ended = Some(ended);
        self.input = None;
        for outlet in &mut self.outputs {
            let left = match &outlet.file {
                Some(_) if self.terminal => LAST_OF_TERMINAL,
                Some(file) => file.readable(),
                None => 0,
            };
            outlet.left = Some(left);
        }
    }

    /// How it has ended, when all that it wrote was taken.
    pub fn over(&self) -> Option<Ended> {
        let drained = self.outputs.iter().all(|it| it.file.is_none());
        self.ended.filter(|_| drained)
    }

    pub fn signal(&self, signal: u8, group: bool) {
        // One that was reaped has no number any more.
        if self.ended.is_none() {
            let _ = sys::kill(if group { -self.pid } else { self.pid }, signal.into());
        }
    }

    /// Nobody listens to it any more: as when a terminal's line is cut.
    pub fn hang_up(&self) {
        if !self.detached {
            self.signal(SIGHUP as u8, true);
            self.signal(SIGCONT as u8, true);
        }
    }

    pub fn resize(&self, size: ConsoleSize) {
        if let (true, Some(file)) = (self.terminal, &self.outputs[0].file) {
            let _ = sys::set_window_size(file.number(), size);
        }
    }

    pub fn grant(&mut self, output: Output, bytes: u32) {
        let credit = &mut self.outputs[output.index()].credit;
        *credit = credit.saturating_add(bytes).min(MAX_CREDIT);
    }

    /// Whoever has the connection now starts with no credit, and is granted all that there is room for.
    pub fn attached(&mut self, connection: &mut Connection) {
        for outlet in &mut self.outputs {
            outlet.credit = 0;
        }
        if let Some(input) = &mut self.input {
            input.credit = 0;
            input.grant(connection);
        }
    }

    /// Takes input; false if it is more than was granted.
    pub fn take_input(&mut self, bytes: &[u8]) -> bool {
        let Some(input) = &mut self.input else {
            // It has just ended, or never had any; the latter is the host's mistake, and no harm.
            return true;
        };
        let count = bytes.len() as u32;
        if count > input.credit || input.ending {
            return false;
        }
        input.credit -= count;
        if input.file.is_some() {
            input.waiting.push(bytes);
        }
        true
    }

    pub fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ending = !self.terminal;
            input.close_if_done();
        }
    }

    /// The descriptor to which input can be written, if there is some to write.
    pub fn wants_write(&self) -> Option<i32> {
        let input = self.input.as_ref().filter(|it| !it.waiting.is_empty())?;
        Some(input.file.as_ref()?.number())
    }

    /// The descriptor of a stream from which is to be read.
    pub fn wants_read(&self, output: Output) -> Option<i32> {
        let outlet = &self.outputs[output.index()];
        let wanted = outlet.credit > 0 && outlet.left != Some(0);
        outlet.file.as_ref().filter(|_| wanted).map(File::number)
    }

    /// Writes input that is waiting, and grants as much again.
    pub fn write_input(&mut self, connection: &mut Connection) {
        let Some(input) = &mut self.input else { return };
        let Some(file) = &input.file else { return };
        match input.waiting.write_to(file) {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                input.file = None;
                input.waiting.consume(input.waiting.bytes().len());
                connection.tell(&Event::InputClosed);
                return;
            }
        }
        input.grant(connection);
        input.close_if_done();
    }

    /// Passes on what the process has written, as much as there is credit and room for.
    pub fn read_output(&mut self, output: Output, connection: &mut Connection) {
        let ended = self.ended.is_some();
        let outlet = &mut self.outputs[output.index()];
        let Some(file) = &outlet.file else { return };
        let most = outlet.credit.min(outlet.left.unwrap_or(u32::MAX)) as usize;
        match connection.pass_on(file, output, most) {
            Ok(0) => {}
            Ok(count) => {
                outlet.credit -= count as u32;
                if let Some(left) = &mut outlet.left {
                    *left -= count as u32;
                }
                return;
            }
            Err(Errno::EINTR) => return,
            // All that a terminal had was read: it says so only now.
            Err(Errno::EAGAIN) if !ended => return,
            Err(_) => {}
        }
        outlet.file = None;
        connection.tell(&Event::OutputEnded { output });
    }

    /// Closes what has nothing more to give after the process's end.
    pub fn settle(&mut self, connection: &mut Connection) {
        for (outlet, output) in self.outputs.iter_mut().zip(Output::ALL) {
            if outlet.left == Some(0) && outlet.file.take().is_some() {
                connection.tell(&Event::OutputEnded { output });
            }
        }
    }
}

impl Input {
    /// Grants what there is room for, when that is worth a frame.
    fn grant(&mut self, connection: &mut Connection) {
        if self.file.is_none() || self.ending {
            return;
        }
        let more = (self.waiting.room() as u32).saturating_sub(self.credit);
        if more >= INPUT_WINDOW / 2 {
            self.credit += more;
            connection.tell(&Event::InputCredit { bytes: more });
        }
    }

    fn close_if_done(&mut self) {
        if self.ending && self.waiting.is_empty() {
            self.file = None;
        }
    }
}
