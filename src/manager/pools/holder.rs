//! The process of a pool: one loop, in which nothing waits for one of its VMs or for whoever takes them.

use super::clients::Clients;
use super::parked::{Heard, Parked, path};
use crate::supervision::address;
use kvmlet_control::{PoolAnswer, PoolRequest, PoolStatus};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::process::Child;
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as begin, socket_with};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nothing is started after a VM was taken: its guest has the host's CPUs for itself as it begins to run.
const QUIET: Duration = Duration::from_millis(3);
/// How long it takes until it is tried again what has failed, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a VM may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long those that nobody has taken have to end.
const TO_END: Duration = Duration::from_secs(10);
/// Programs that wait to be accepted.
const BACKLOG: i32 = 128;

/// What is told of a pool that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// All of its VMs are ready.
    Full,
    /// Some are, and for this reason no more. It goes on.
    Short(&'a str),
    /// None is, for this reason, and it ends.
    Empty(&'a str),
}

/// What keeps a pool's VMs.
pub struct Holder {
    size: usize,
    /// What they go on from, whatever has its name meanwhile.
    file: File,
    /// As users know it.
    called: PathBuf,
    /// A command of the program that runs VMs.
    machine: Box<dyn Fn() -> io::Result<Command>>,
    /// What each VM has on this host.
    words: Vec<OsString>,
    parked: VecDeque<Parked>,
    starting: Option<(Parked, Instant)>,
    /// Supervisors of VMs that are somebody else's now, or that end: only their parent can wait for them.
    others: Vec<Child>,
    taken: u32,
    lack: Option<String>,
    /// When the next one may be started, and how long it takes then until the next attempt.
    due: Instant,
    pause: Duration,
    has_begun: bool,
    /// The writer's end of a pipe to who waits until it has begun: without that one, nobody has asked for it.
    heard_by: Option<OwnedFd>,
}

/// A socket in a directory at which this user's programs take VMs.
pub(super) fn listen(directory: &Directory, name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Nobody else comes into the directory.
    bind(&socket, &address(directory, name)?)?;
    begin(&socket, BACKLOG)?;
    Ok(socket)
}

impl Holder {
    /// Of VMs that go on from a file, which is called that. `machine` is a command of the program that runs VMs, `words` are the
    /// flags by which it restores each.
    pub fn new(
        size: u32,
        file: File,
        called: PathBuf,
        machine: impl Fn() -> io::Result<Command> + 'static,
        words: Vec<OsString>,
    ) -> Self {
        Self {
            size: size as usize,
            file,
            called,
            machine: Box::new(machine),
            words,
            parked: VecDeque::new(),
            starting: None,
            others: Vec::new(),
            taken: 0,
            lack: None,
            due: Instant::now(),
            pause: FIRST_PAUSE,
            has_begun: false,
            heard_by: None,
        }
    }

    /// Ends where nobody reads from that pipe any more before it has begun.
    pub fn heard_by(self, pipe: OwnedFd) -> Self {
        let heard_by = Some(pipe);
        Self { heard_by, ..self }
    }

    /// Keeps as many ready as there are to be, and gives them away, until somebody wants the end.
    pub(super) fn serve(
        mut self,
        listener: &OwnedFd,
        told: &mut dyn FnMut(Told<'_>),
    ) -> io::Result<()> {
        let signals = Signals::take(&ENDING)?;
        let mut clients = Clients::new();
        let ended_by = loop {
            self.refill(&clients);
            let (is_over, ready) = self.wait(listener, &clients, &signals)?;
            if is_over {
                break None;
            }
            let mut end = None;
            for (number, request) in clients.turn(listener.as_fd(), &ready) {
                match request {
                    PoolRequest::Take => clients.queue(number),
                    PoolRequest::Status => clients.answer(number, &self.status()),
                    PoolRequest::End => end = Some(number),
                    // One that a later kvmlet knows.
                    _ => clients.answer(number, &PoolAnswer::Refused("it is not known".into())),
                }
            }
            self.give(&mut clients);
            if end.is_some() {
                break end;
            }
            self.hear_all();
            self.give(&mut clients);
            if !self.has_begun && !self.tell(told) {
                break None;
            }
        };
        self.end();
        if let Some(number) = ended_by {
            clients.answer(number, &PoolAnswer::Ended);
        }
        Ok(())
    }

    /// Tells how it has begun, once that is known. False if nothing comes of it.
    fn tell(&mut self, told: &mut dyn FnMut(Told<'_>)) -> bool {
        let step = match (&self.lack, self.parked.len()) {
            (Some(why), 0) if self.taken == 0 => Told::Empty(why),
            (Some(why), _) => Told::Short(why),
            (None, ready) if ready + (self.taken as usize) >= self.size => Told::Full,
            _ => return true,
        };
        self.has_begun = true;
        // It is read to its end.
        self.heard_by = None;
        told(step);
        !matches!(step, Told::Empty(_))
    }

    /// Waits until there is something to do; returns whether it is to end, and what is ready of clients' slots.
    fn wait(
        &self,
        listener: &OwnedFd,
        clients: &Clients,
        signals: &Signals,
    ) -> io::Result<(bool, Vec<bool>)> {
        let own = self.parked.iter();
        let own = own.chain(self.starting.iter().map(|(one, _)| one));
        let mut slots = vec![Slot::readable(signals.as_fd())];
        slots.extend(self.heard_by.iter().map(|pipe| Slot::broken(pipe.as_fd())));
        let ends = slots.len();
        slots.extend(own.map(|one| Slot::readable(one.as_fd())));
        slots.extend(self.others.iter().map(|one| Slot::readable(one.as_fd())));
        let others = slots.len();
        slots.extend(clients.slots(listener.as_fd()));
        let late = self.starting.as_ref().map(|(_, until)| *until);
        let due = self.wants_more().then_some(self.due);
        let due = [late, due, clients.due()].into_iter().flatten().min();
        wait::any_of(&mut slots, Until::from(due))?;
        let ready = slots.iter().skip(others).map(Slot::is_ready).collect();
        Ok((slots.iter().take(ends).any(Slot::is_ready), ready))
    }

    fn wants_more(&self) -> bool {
        self.starting.is_none() && self.parked.len() < self.size
    }

    /// Starts one more, if one is lacking. One at a time: it is others' host, too.
    fn refill(&mut self, clients: &Clients) {
        let now = Instant::now();
        // Who waits has nothing that a start could disturb.
        let is_time = now >= self.due || (self.lack.is_none() && clients.is_waited_for());
        if !self.wants_more() || !is_time {
            return;
        }
        let started = (self.machine)();
        let started = started.and_then(|machine| Parked::start(machine, &self.words, &self.file));
        match started {
            Ok(one) => self.starting = Some((one, now + PATIENCE)),
            Err(error) => self.fail(format!("no process can be started: {error}")),
        }
    }

    /// It does not work for now.
    fn fail(&mut self, why: String) {
        // Users know the file by its name.
        let why = why.replace(&path(&self.file), &self.called.display().to_string());
        log::info!("a VM of the pool cannot be made ready: {why}");
        self.lack = Some(why);
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    /// Hears what VMs have to tell, and waits for those that are over.
    fn hear_all(&mut self) {
        match self.starting.take() {
            None => {}
            Some((one, until)) => match one.hear() {
                Heard::Ready => {
                    self.parked.push_back(one);
                    self.lack = None;
                    self.pause = FIRST_PAUSE;
                }
                Heard::Ended(why) => {
                    self.others.push(one.supervisor);
                    self.fail(why);
                }
                Heard::Nothing if Instant::now() >= until => {
                    let _ = one.supervisor.signal(Signal::KILL);
                    self.others.push(one.supervisor);
                    self.fail(format!("it is not ready after {} s", PATIENCE.as_secs()));
                }
                Heard::Nothing => self.starting = Some((one, until)),
            },
        }
        for _ in 0..self.parked.len() {
            let Some(one) = self.parked.pop_front() else {
                break;
            };
            match one.hear() {
                Heard::Ended(why) => {
                    self.others.push(one.supervisor);
                    self.fail(format!("one has ended before it was taken: {why}"));
                }
                _ => self.parked.push_back(one),
            }
        }
        let (ended, live): (Vec<_>, Vec<_>) = std::mem::take(&mut self.others)
            .into_iter()
            .partition(|one| wait::one(Slot::readable(one.as_fd()), Until::Now).unwrap_or(false));
        self.others = live;
        if !ended.is_empty() && self.lack.is_some() && self.pause > FIRST_PAUSE {
            // What it had is the host's again.
            self.due = self.due.min(Instant::now() + FIRST_PAUSE);
        }
        for one in ended {
            let _ = one.wait();
        }
    }

    /// Gives VMs to those who wait, as far as there are some. Who waits in vain is told.
    fn give(&mut self, clients: &mut Clients) {
        while !self.parked.is_empty()
            && let Some(number) = clients.next()
            && let Some(one) = self.parked.pop_front()
        {
            // One that has ended meanwhile tells whoever takes it.
            let _ = one.go_on();
            let process = one.supervisor.pid().as_raw_pid().unsigned_abs();
            let answer = PoolAnswer::Taken { process };
            if clients.hand(number, &answer, one.descriptors()) {
                self.taken = self.taken.saturating_add(1);
            }
            // From here on its channel is whose it was given to, and if that is nobody, it ends.
            self.others.push(one.supervisor);
            self.due = self.due.max(Instant::now() + QUIET);
        }
        if let (Some(why), None, true) = (&self.lack, &self.starting, self.parked.is_empty()) {
            let why = format!("none is ready: {why}");
            while let Some(number) = clients.next() {
                clients.answer(number, &PoolAnswer::Refused(why.clone()));
            }
        }
    }

    fn status(&self) -> PoolAnswer {
        let mut status = PoolStatus::default();
        status.ready = self.parked.len() as u32;
        status.taken = self.taken;
        status.lack = self.lack.clone();
        PoolAnswer::Status(status)
    }

    /// Ends all that nobody has taken, and waits for that.
    fn end(self) {
        let starting = self.starting.map(|(one, _)| one);
        let all = self.parked.into_iter().chain(starting);
        // Their channels are closed by this.
        let ending: Vec<Child> = all.map(|one| one.supervisor).collect();
        let deadline = Instant::now() + TO_END;
        for one in ending {
            let until = Until::Deadline(deadline);
            if !wait::one(Slot::readable(one.as_fd()), until).unwrap_or(false) {
                let _ = one.signal(Signal::KILL);
            }
            let _ = one.wait();
        }
    }
}
