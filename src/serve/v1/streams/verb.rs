//! A verb of kvmlet's that reads or writes what is on its way between a client and a guest: this process only passes it on.

use super::super::copies::program;
use super::super::problem::{BUSY, HOST, Problem};
use kvmlet_command::beside::VERBS;
use kvmlet_sys::wait::Slot;
use rustix::io::{Errno, ioctl_fionbio, read, write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

/// No message is longer.
const MESSAGE_BYTES: usize = 16 << 10;

/// One that runs. It is killed when this is dropped before it has ended.
#[derive(Debug)]
pub struct Verb {
    child: Child,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    said: Vec<u8>,
}

impl Verb {
    /// Starts one, with these words.
    pub fn start(words: &[&str]) -> Result<Self, Problem> {
        let mut command = program(VERBS)?;
        command.args(words);
        // What ends this process by a terminal's keys is not meant for it.
        command.process_group(0).current_dir("/");
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| Problem::because(BUSY, &error))?;
        let verb = Self {
            input: child.stdin.take().map(Into::into),
            output: child.stdout.take().map(Into::into),
            errors: child.stderr.take().map(Into::into),
            child,
            said: Vec::new(),
        };
        for pipe in [&verb.input, &verb.output, &verb.errors]
            .into_iter()
            .flatten()
        {
            let set = ioctl_fionbio(pipe, true);
            set.map_err(|error| Problem::because(HOST, &error))?;
        }
        Ok(verb)
    }

    /// That it takes input, if there is some.
    pub fn input_slot(&self, has_some: bool) -> Slot<'_> {
        match &self.input {
            Some(pipe) if has_some => Slot::writable(pipe.as_fd()),
            _ => Slot::NOTHING,
        }
    }

    /// That it has output, if there is room.
    pub fn output_slot(&self, has_room: bool) -> Slot<'_> {
        match &self.output {
            Some(pipe) if has_room => Slot::readable(pipe.as_fd()),
            _ => Slot::NOTHING,
        }
    }

    /// That it says something on its standard error, or has ended.
    pub fn error_slot(&self) -> Slot<'_> {
        let pipe = self.errors.as_ref();
        pipe.map_or(Slot::NOTHING, |pipe| Slot::readable(pipe.as_fd()))
    }

    /// Gives it what it takes; what it takes no more is dropped.
    pub fn feed(&mut self, bytes: &mut Vec<u8>) {
        let Some(pipe) = self.input.as_ref().filter(|_| !bytes.is_empty()) else {
            return;
        };
        match write(pipe, bytes) {
            Ok(count) => drop(bytes.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.end_input(),
        }
        if self.input.is_none() {
            bytes.clear();
        }
    }

    /// There is no more input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// What it has written, if it has.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        taken(&mut self.output, buffer)
    }

    /// It has written all.
    pub fn is_mute(&self) -> bool {
        self.output.is_none()
    }

    /// Hears what it says; true when it says no more.
    pub fn hear(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let count = taken(&mut self.errors, &mut buffer);
            if count == 0 {
                return self.errors.is_none();
            }
            let room = MESSAGE_BYTES - self.said.len();
            self.said.extend_from_slice(&buffer[..count.min(room)]);
        }
    }

    /// Why it has not done what it was to, when it says no more.
    pub fn ended(mut self) -> Result<(), Problem> {
        let status = self.child.wait();
        let status = status.map_err(|error| Problem::because(HOST, &error))?;
        match status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&self.said);
                Err(Problem::of_file(&said))
            }
        }
    }
}

/// What a pipe has now, which is gone at its end.
fn taken(pipe: &mut Option<OwnedFd>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe.as_ref() else {
        return 0;
    };
    match read(open, buffer) {
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Ok(0) | Err(_) => {
            *pipe = None;
            0
        }
        Ok(count) => count,
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        // One that was waited for is left alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
