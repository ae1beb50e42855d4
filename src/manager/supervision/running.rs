//! A program that runs, with its outputs.

use super::Program;
use super::control::Control;
use super::ending::FAILED;
use super::handing::{Given, How};
use super::starter::{Started, Starter};
use crate::logs::Stream;
use kvmlet_control::State;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::process::Ended;
use kvmlet_sys::signals::Signals;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ioctl_fionbio, read};
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What a pipe holds (pipe(7)).
const READ_BYTES: usize = 64 << 10;
/// As much is kept of what a program says that fails.
const LAST_WORDS: usize = 4 << 10;
/// Read at once of one stream: one that writes without end has its turn, and no more.
const TURNS: usize = 4;

/// How a VM is ended at once: its program is asked twice, of which the second time is not for once more, and then killed. And
/// how long is waited after each.
const CUT: [(libc::c_int, Duration); 3] = [
    (libc::SIGTERM, Duration::from_millis(300)),
    (libc::SIGTERM, Duration::from_secs(5)),
    (libc::SIGKILL, Duration::from_secs(5)),
];

/// How a program has run.
#[derive(Debug)]
pub(super) struct Ran {
    pub code: u8,
    /// Its VM ran, whatever has become of its service.
    pub began: bool,
    /// What it is for ran: its VM, or the service in it.
    pub started: bool,
    /// What it said, if it has failed.
    pub error: Option<String>,
}

impl Ran {
    pub fn failed(error: String) -> Self {
        Self {
            code: FAILED,
            began: false,
            started: false,
            error: Some(error),
        }
    }
}

pub(super) struct Running {
    process: Started,
    outputs: [(Stream, Option<OwnedFd>); 2],
    /// None when it has been heard, or will not be.
    ready: Option<PipeReader>,
    /// By which it tells what its VM is doing, if it does.
    control: Option<Control>,
    /// Its VM runs.
    began: bool,
    /// What it is for runs: its VM, or the service in it.
    started: bool,
    /// Its VM runs, which was not asked for yet.
    new: bool,
    /// Its guest tells when its service runs, and its standard output is the guest's console.
    has_channel: bool,
    /// Its VM is to end at once: when the next step is due, and how many were made.
    cut: Option<(Instant, usize)>,
    last_words: Vec<u8>,
    buffer: Vec<u8>,
}

/// What there is after a wait.
pub(super) struct Woken {
    pub has_ended: bool,
}

impl Running {
    /// Has the program started, which inherits the lock.
    pub fn start(
        program: &Program<'_>,
        how: How,
        starter: &mut Starter,
        lock: &File,
        directory: &Directory,
    ) -> io::Result<Self> {
        let (ready, their_ready) = io::pipe()?;
        let (their_in, mut input) = io::pipe()?;
        let (out, their_out) = io::pipe()?;
        let (err, their_err) = io::pipe()?;
        let control = program
            .control
            .map(|_| Control::listen(directory))
            .transpose()?;
        let given = Given {
            streams: [their_in.into(), their_out.into(), their_err.into()],
            lock: lock.try_clone()?.into(),
            ready: their_ready.into(),
            control: control.as_ref().map(Control::for_program).transpose()?,
        };
        let process = starter.start(how, &given)?;
        drop(given);
        // In a process that was forked for it that is known.
        if !starter.knows(how) {
            // One that does not fails by itself.
            let _ = input.write_all(program.input);
        }
        drop(input);
        let [out, err] = [out, err].map(OwnedFd::from);
        for output in [&out, &err] {
            ioctl_fionbio(output, true)?;
        }
        let has_channel = program.channel.is_some();
        let stdout = match has_channel {
            true => Stream::Console,
            false => Stream::Stdout,
        };
        Ok(Self {
            process,
            outputs: [(stdout, Some(out)), (Stream::Kvmlet, Some(err))],
            ready: program.ready.is_some().then_some(ready),
            control,
            began: program.ready.is_none(),
            started: program.ready.is_none() && !has_channel,
            new: program.ready.is_none(),
            has_channel,
            cut: None,
            last_words: Vec::new(),
            buffer: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Waits for anything, also of these others, but not for longer than `due`.
    pub fn wait<'fd>(
        &mut self,
        told: &Signals,
        others: impl IntoIterator<Item = Slot<'fd>>,
        due: Option<Instant>,
    ) -> io::Result<Woken> {
        let until = match self.new {
            true => Until::Now,
            false => Until::from(self.cut.map(|(at, _)| at).into_iter().chain(due).min()),
        };
        let [(_, out), (_, err)] = &self.outputs;
        let mut slots = vec![
            Slot::readable(self.process.pidfd.as_fd()),
            or_nothing(self.ready.as_ref().map(AsFd::as_fd)),
            Slot::readable(told.as_fd()),
            self.control.as_ref().map_or(Slot::NOTHING, Control::slot),
            or_nothing(out.as_ref().map(AsFd::as_fd)),
            or_nothing(err.as_ref().map(AsFd::as_fd)),
        ];
        for slot in others {
            slots.push(slot);
        }
        wait::any_of(&mut slots, until)?;
        let [has_ended, ready] = [0, 1].map(|index: usize| slots[index].is_ready());
        drop(slots);
        if ready && let Some(pipe) = self.ready.take() {
            // Who ends without a word has not run.
            let mut word = [0];
            self.new = read(&pipe, &mut word).is_ok_and(|count| count > 0);
            self.began = self.new;
            // A guest's word may have come first.
            self.started |= self.new && !self.has_channel;
        }
        Ok(Woken { has_ended })
    }

    /// Does its VM run, since this was asked last?
    pub fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.new)
    }

    /// Its guest has told that its service runs.
    pub fn service_runs(&mut self) {
        self.started = true;
    }

    /// Has its VM end at once, whatever its guest does. To be gone on with.
    pub fn cut(&mut self) {
        if self.cut.is_none() {
            self.cut = Some((Instant::now(), 0));
            self.go_on_cutting();
        }
    }

    /// The same, by a signal that asks for nothing less, and by the other steps where that does not do.
    pub fn cut_by(&mut self, signal: libc::c_int) {
        if self.cut.is_none() {
            self.signal(signal);
            self.cut = Some((Instant::now() + CUT[0].1, 1));
        }
    }

    /// Does what is due to have its VM end.
    pub fn go_on_cutting(&mut self) {
        let Some((_, step)) = self.cut.filter(|(at, _)| *at <= Instant::now()) else {
            return;
        };
        let (signal, pause) = CUT[step.min(CUT.len() - 1)];
        self.signal(signal);
        self.cut = Some((Instant::now() + pause, step + 1));
    }

    /// What its VM does from now on, if that was told.
    pub fn next_state(&mut self) -> Option<State> {
        self.control.as_mut()?.next_state()
    }

    /// Asks what the VM has done so far.
    pub fn ask_for_stats(&mut self) {
        if let Some(control) = &mut self.control {
            control.ask_for_stats();
        }
    }

    /// The answer, as JSON, once.
    pub fn stats(&mut self) -> Option<Vec<u8>> {
        self.control.as_mut()?.stats()
    }

    /// Asks which addresses its interfaces have.
    pub fn ask_for_interfaces(&mut self) {
        if let Some(control) = &mut self.control {
            control.ask_for_interfaces();
        }
    }

    /// The answer, once.
    pub fn interfaces(&mut self) -> Option<Vec<String>> {
        self.control.as_mut()?.interfaces()
    }

    /// Has a VM go on that stands still.
    pub fn resume(&mut self) {
        if let Some(control) = &mut self.control {
            control.resume();
        }
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: libc::c_int) {
        let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
        self.process.signal(signal);
    }

    /// Gives away what there is of its outputs; true if there may be more.
    pub fn read(&mut self, mut give: impl FnMut(Stream, &[u8])) -> bool {
        let mut more = false;
        for (stream, output) in &mut self.outputs {
            for _ in 0..TURNS {
                let Some(pipe) = &*output else {
                    break;
                };
                self.buffer.clear();
                match read(pipe, spare_capacity(&mut self.buffer)) {
                    Ok(count @ 1..) => {
                        let bytes = &self.buffer[..];
                        if *stream == Stream::Kvmlet && !self.started {
                            let room = LAST_WORDS - self.last_words.len();
                            self.last_words.extend(&bytes[..count.min(room)]);
                        }
                        give(*stream, bytes);
                        more = true;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Ok(_) | Err(_) => *output = None,
                }
            }
        }
        more
    }

    /// How it has ended.
    pub fn ended(self) -> io::Result<Ran> {
        let code = match self.process.wait()? {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => 128 + signal as u8,
        };
        let error = match self.started {
            true => None,
            false => complaint(&String::from_utf8_lossy(&self.last_words)),
        };
        Ok(Ran {
            code,
            began: self.began,
            started: self.started,
            error,
        })
    }
}

/// What a program has complained of, if it has: neither what it tells by the way, which begins with its name, nor its log.
fn complaint(words: &str) -> Option<String> {
    let error = words.lines().position(|line| line.starts_with("error: "));
    let lines: Vec<&str> = match error {
        Some(at) => words.lines().skip(at).collect(),
        None => {
            let by_the_way = |line: &&str| line.starts_with("kvmlet: ") || line.starts_with('[');
            words.lines().filter(|line| !by_the_way(line)).collect()
        }
    };
    let text = lines.join("\n");
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

fn or_nothing(fd: Option<BorrowedFd<'_>>) -> Slot<'_> {
    fd.map_or(Slot::NOTHING, Slot::readable)
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn what_is_told_by_the_way_is_no_complaint() {
        let error = "error: cannot give the VM a disk\n  help: make one";
        let told = "kvmlet: published 127.0.0.1:8080:80/tcp\n";
        for (words, expected) in [
            (format!("{told}{error}\n"), Some(error)),
            (format!("{error}\n"), Some(error)),
            (told.into(), None),
            ("[WARN  kvmlet_vmm] output was dropped\n".into(), None),
            ("thread panicked\n".into(), Some("thread panicked")),
            (String::new(), None),
        ] {
            assert_eq!(complaint(&words).as_deref(), expected);
        }
    }
}
