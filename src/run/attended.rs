//! The supervisor's turn: a VM's process, watched until it has ended, or cannot.

use crate::allocator::give_back;
use crate::console::{Console, Keys};
use crate::control::failure;
pub(crate) use crate::fate::{Fate, Limits, Wish};
use crate::network_service::NetworkService;
use crate::pager::WatchedPager;
use crate::reports::Reports;
use crate::stopping::{AT_ONCE, POWERING_OFF};
use crate::upstream::{NOBODYS, Upstream};
use kvmlet_control::{Order, Request, State};
use kvmlet_sys::first_thread;
use kvmlet_sys::interrupt;
use kvmlet_sys::process::{Child, Ended};
use kvmlet_sys::settling::Settling;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Signal;
use rustix::stdio::stdin;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What is waited for on the supervisor's own behalf.
const OWN: usize = 8;
/// What a VM's process takes to cut its guest's power.
const CUT: Duration = Duration::from_secs(1);
/// What it takes to end once it is killed, unless it waits for a device that hangs.
const KILLED: Duration = Duration::from_secs(10);

/// A VM's process, and what has become of the wish for its end.
pub(crate) struct Attended<'a> {
    child: Child,
    console: &'a mut Console,
    keys: Option<Keys>,
    reports: &'a mut Reports,
    upstream: &'a mut Upstream,
    service: &'a mut NetworkService,
    /// Who has its memory, if somebody else has.
    pager: Option<&'a mut WatchedPager>,
    /// When it is looked whether it can still end.
    next_look: Instant,
    /// Its first thread has ended, and it had not at the last look.
    lingers: bool,
    /// How long it has to end once it is asked.
    patience: Duration,
    settling: Settling,
    ending: Option<Ending>,
    /// The most that a file has which it is saved in, in bytes.
    most_saved: u64,
}

struct Ending {
    /// Who asked for it last, or pressed the escape key.
    wish: Wish,
    asked: Instant,
    /// When it is killed, or given up.
    deadline: Instant,
    killed: bool,
}

impl<'a> Attended<'a> {
    /// A child, and what it may take.
    pub fn new(
        child: Child,
        console: &'a mut Console,
        keys: Option<Keys>,
        reports: &'a mut Reports,
        upstream: &'a mut Upstream,
        service: &'a mut NetworkService,
        limits: Limits,
    ) -> Self {
        Self {
            child,
            console,
            keys,
            reports,
            upstream,
            service,
            pager: None,
            next_look: Instant::now() + KILLED,
            lingers: false,
            patience: limits.stop_timeout.saturating_add(POWERING_OFF + CUT),
            settling: Settling::begin(),
            ending: None,
            most_saved: limits.most_saved,
        }
    }

    /// The same, of a VM whose memory a program has.
    pub fn fed_by(self, pager: Option<&'a mut WatchedPager>) -> Self {
        Self { pager, ..self }
    }

    /// Passes signals, keys and orders on to the child, and what it tells to whom it concerns, until it has ended. None
    /// when it does not, though it should have.
    pub fn until_end(mut self) -> io::Result<Option<Fate>> {
        // What has ended a wait since the start was last looked at is not read again.
        if let Some(signal) = interrupt::interrupted_by() {
            self.signal(signal)?;
        }
        loop {
            let look = self.console.follow_foreground();
            let [ended, pressed, room, ordered, serves] = self.wait(look)?;
            if serves && !ended {
                let lost = self.service.turn();
                lost.iter().for_each(|lost| log::error!("{lost}"));
            }
            self.hear();
            if ended {
                if let Some(report) = self.reports.finish() {
                    self.upstream.pass_on(report);
                }
                return self.fate().map(Some);
            }
            if let Some(keys) = &mut self.keys {
                let escaped = pressed && keys.read();
                if room {
                    keys.pass_on();
                }
                if escaped {
                    self.end(Wish::Escape, None);
                }
            }
            if ordered {
                for request in self.upstream.turn() {
                    self.order(request);
                }
            }
            if self.pager.as_mut().is_some_and(|pager| pager.goes()) {
                self.end(Wish::Unfed, Some(Duration::ZERO));
            }
            while let Some(signal) = self.console.signals().next()? {
                self.signal(signal)?;
            }
            if self.settling.look() {
                give_back();
            }
            self.kill_when_late()?;
            if self.is_given_up() {
                return Ok(None);
            }
        }
    }

    /// Passes on what the VM has told, and its guest has written.
    fn hear(&mut self) {
        if let Some(report) = self.reports.pass_on() {
            self.upstream.pass_on(report);
        }
    }

    /// Waits until something has come: the end, keys, room for keys, an order, or a turn of the networks' service. What
    /// else there is tells it itself.
    fn wait(&self, look: Option<Duration>) -> io::Result<[bool; 5]> {
        let or_nothing = |fd: Option<_>| fd.map_or(Slot::NOTHING, Slot::readable);
        let keys = self.keys.as_ref();
        let read = keys.filter(|keys| keys.wants_more() && self.console.has_keys());
        let [out, err, told] = self.reports.fds();
        let own: [Slot<'_>; OWN] = [
            Slot::readable(self.child.as_fd()),
            or_nothing(read.map(|_| stdin())),
            keys.and_then(Keys::full)
                .map_or(Slot::NOTHING, Slot::writable),
            Slot::readable(self.console.signals().as_fd()),
            or_nothing(told),
            or_nothing(out),
            or_nothing(err),
            self.pager.as_ref().map_or(Slot::NOTHING, |it| it.slot()),
        ];
        let mut slots: Vec<Slot<'_>> = own.into_iter().chain(self.service.slots()).collect();
        let networks = slots.len();
        slots.extend(self.upstream.slots());
        let theirs = [self.service.due(), self.upstream.due()];
        let due = theirs.into_iter().flatten();
        let due = due.fold(self.due(look), Instant::min);
        wait::any_of(&mut slots, Until::Deadline(due))?;
        let (slots, upstream) = slots.split_at(networks);
        let (own, networks) = slots.split_at(OWN);
        let now = Instant::now();
        let [networks_due, upstream_due] = theirs.map(|at| at.is_some_and(|at| at <= now));
        let serves = networks_due || networks.iter().any(Slot::is_ready);
        let ordered = upstream_due || upstream.iter().any(Slot::is_ready);
        let [ended, pressed, room] =
            [0, 1, 2].map(|place: usize| own.get(place).is_some_and(Slot::is_ready));
        Ok([ended, pressed, room, ordered, serves])
    }

    /// How the child has ended.
    fn fate(self) -> io::Result<Fate> {
        let ended = self.child.wait()?;
        let killed = self.ending.as_ref().is_some_and(|ending| ending.killed);
        Ok(Fate {
            ended,
            wish: self.ending.map(|ending| ending.wish),
            in_time: !(killed && ended == Ended::Killed(libc::SIGKILL)),
        })
    }

    fn signal(&mut self, signal: libc::c_int) -> io::Result<()> {
        match signal {
            libc::SIGUSR1 => {
                self.ask(Order::Stats);
                Ok(())
            }
            // A VM in the jail does not belong to the terminal's jobs: it stops with this process, and goes on with it.
            libc::SIGTSTP => {
                self.child.signal(Signal::STOP)?;
                self.console.suspend();
                self.child.signal(Signal::CONT)
            }
            libc::SIGCONT => {
                self.console.resume();
                self.child.signal(Signal::CONT)
            }
            libc::SIGQUIT => {
                self.end(Wish::Signal(signal), Some(Duration::ZERO));
                Ok(())
            }
            _ => {
                self.end(Wish::Signal(signal), None);
                Ok(())
            }
        }
    }

    /// Somebody upstream wants something. What the VM is asked it answers itself.
    fn order(&mut self, request: Request) {
        let number = request.number;
        match request.order {
            Order::Stop { patience_ms } => {
                let patience = patience_ms.map(|ms| Duration::from_millis(ms.into()));
                self.end(Wish::Order, patience);
                self.upstream.answer(number, None);
            }
            Order::Signal { signal } if i32::from(signal) == libc::SIGKILL => {
                self.end(Wish::Signal(libc::SIGKILL), Some(Duration::ZERO));
                self.upstream.answer(number, None);
            }
            Order::Signal { .. } => {
                let mut refused =
                    failure("no signal but KILL, which cuts its power, reaches the VM");
                refused.help = Some("stop it: its service is asked to end then".into());
                self.upstream.answer(number, Some(refused));
            }
            Order::Watch | Order::Published | Order::Interfaces => {
                self.upstream.answer_self(number)
            }
            order if order.is_saving() => self.save(request),
            _ if !self.reports.ask(request) => self.upstream.refuse(number),
            _ => {}
        }
    }

    /// Joins the VM, which is to be saved, and whoever writes that: neither has anything of the other but the end of a
    /// stream.
    fn save(&mut self, request: Request) {
        let number = request.number;
        let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
        let (theirs, pieces) = match socketpair(AddressFamily::UNIX, kind, flags, None) {
            Ok(pair) => pair,
            Err(error) => {
                let why = format!("the host cannot give a stream for what is saved: {error}");
                return self.upstream.answer(number, Some(failure(&why)));
            }
        };
        // Whoever asks may have seen that the guest runs before that was heard here.
        if !self.reports.is_ready() {
            self.hear();
        }
        let asked = self.reports.is_ready() && self.reports.ask_with(request, theirs.as_fd());
        if !asked || !self.upstream.hand(number, self.most_saved, pieces) {
            self.upstream.refuse(number);
        }
    }

    /// What the VM is asked of which nobody waits for the answer. It is lost on one that does not listen.
    fn ask(&self, order: Order) {
        let number = NOBODYS;
        self.reports.ask(Request { number, order });
    }

    /// Somebody wants the end, in that time if they say so. Until the VM runs there is nothing that it could lose, and no
    /// waiting for a file or for memory keeps its process from being killed.
    fn end(&mut self, wish: Wish, patience: Option<Duration>) {
        let now = Instant::now();
        let time = patience.map_or(self.patience, |time| time.saturating_add(CUT));
        let ending = self.ending.get_or_insert(Ending {
            wish,
            asked: now,
            deadline: now + time,
            killed: false,
        });
        if ending.killed {
            return;
        }
        if ending.wish != Wish::Escape {
            ending.wish = wish;
        }
        self.upstream.set_state(State::Ending);
        if !self.reports.is_ready() {
            ending.deadline = now;
            return;
        }
        if now.saturating_duration_since(ending.asked) >= AT_ONCE {
            // It is the second time.
            ending.deadline = ending.deadline.min(now + CUT);
        }
        if patience.is_some() {
            ending.deadline = ending.deadline.min(now + time);
        }
        let patience_ms = patience.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        self.ask(Order::Stop { patience_ms });
    }

    /// When whoever wants the end waits in vain: the VM's process was asked something else before, and waits for memory with that, which
    /// the program that has it does not give. So it has not heard of it.
    fn unheard(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().filter(|ending| !ending.killed)?;
        let waits = self.pager.is_some() && self.upstream.waits_since(ending.asked);
        waits.then(|| ending.asked + CUT)
    }

    fn kill_when_late(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let unheard = self.unheard().is_some_and(|due| now >= due);
        if let Some(ending) = self.ending.as_mut().filter(|_| unheard) {
            ending.deadline = now;
        }
        match &mut self.ending {
            Some(ending) if !ending.killed && now >= ending.deadline => {
                ending.killed = true;
                ending.deadline = now + KILLED;
                self.child.signal(Signal::KILL)
            }
            Some(ending) if ending.killed && now >= ending.deadline - KILLED + CUT => {
                if let Some(pager) = self.pager.take() {
                    pager.let_go();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// It was killed, or has ended by itself as far as it could, and its time to be gone is up.
    fn is_given_up(&mut self) -> bool {
        let now = Instant::now();
        let killed = self.ending.as_ref().filter(|ending| ending.killed);
        if killed.is_some_and(|ending| now >= ending.deadline) {
            return true;
        }
        if now < self.next_look {
            return false;
        }
        self.next_look = now + KILLED;
        let lingered = self.lingers;
        self.lingers = first_thread::has_ended(self.child.pid());
        if let Some(pager) = self.pager.as_ref().filter(|_| self.lingers) {
            pager.let_go();
        }
        lingered && self.lingers
    }

    /// When something is due, `look` among it.
    fn due(&self, look: Option<Duration>) -> Instant {
        let ending = self.ending.as_ref();
        let ending = ending.map(|ending| match ending.killed && self.pager.is_some() {
            true => ending.deadline - KILLED + CUT,
            false => ending.deadline,
        });
        let look = look.map(|look| Instant::now() + look);
        let due = [ending, self.unheard(), look, self.settling.due()];
        let due = due.into_iter().flatten();
        due.fold(self.next_look, Instant::min)
    }
}
