//! Whoever wants to know of a supervisor's VM and asks it for something: the program that has started it, at the other end
//! of a channel, and those that connect to its control socket.

use crate::Error;
use crate::control::{ControlListener, ControlSocket, failure};
use crate::waiting::{ANSWER, Asker, Waiting};
use kvmlet_control::{Channel, Order, REQUEST_BYTES, Received, Report, Request, State, UNANSWERED};
use kvmlet_spec::{Dialect, Failure, Outcome};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long whoever does not read may take before it misses the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that wait for their answer at the same time; others are refused.
const MOST_WAITING: usize = 64;
/// The number of requests whose answer nobody waits for.
pub(crate) const NOBODYS: u32 = 0;
/// What it means that nobody is left.
const GONE: Request = Request {
    number: NOBODYS,
    order: Order::Stop { patience_ms: None },
};

/// The ways there.
pub(crate) struct Upstream {
    channel: Option<Channel>,
    /// The VM goes on when nobody is left there.
    outlives: bool,
    /// Who waits for the VM to run, and for nothing else.
    ready: Option<OwnedFd>,
    socket: Option<ControlSocket>,
    state: State,
    /// What the VM does when it is ready.
    first: State,
    waiting: Vec<Waiting>,
    /// The number of the last request.
    last: u32,
    /// The VM's process, once there is one, and which ports of the host lead to it.
    vm: Option<Pid>,
    published: Vec<String>,
    /// What its guest is told of its interfaces.
    interfaces: Vec<String>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            channel: None,
            outlives: false,
            ready: None,
            socket: None,
            state: State::Starting,
            first: State::Running,
            waiting: Vec::new(),
            last: NOBODYS,
            vm: None,
            published: Vec::new(),
            interfaces: Vec::new(),
        }
    }
}

impl Upstream {
    /// By this channel. When its other end is closed the VM is to end, unless it `outlives` that.
    pub fn new(channel: Channel, outlives: bool) -> Self {
        Self {
            channel: Some(channel),
            outlives,
            ..Self::default()
        }
    }

    /// Tells somebody who waits for it that the VM runs, by a line.
    pub fn tell_ready(&mut self, ready: Option<OwnedFd>) {
        self.ready = ready;
    }

    /// Serves a control socket as well.
    pub fn listen(&mut self, listener: Option<ControlListener>) {
        self.socket = listener.map(ControlSocket::new);
    }

    /// Is the VM to stand still until somebody has it run?
    pub fn begin(&mut self, paused: bool) {
        if paused {
            self.first = State::Paused;
        }
    }

    /// Of this process, to which these ports lead, and which has these interfaces.
    pub fn attend(&mut self, vm: Pid, published: Vec<String>, interfaces: Vec<String>) {
        (self.vm, self.published, self.interfaces) = (Some(vm), published, interfaces);
    }

    /// Does anybody want to know anything?
    pub fn is_wanted(&self) -> bool {
        self.wants_stats() || self.ready.is_some()
    }

    /// May anybody want statistics?
    pub fn wants_stats(&self) -> bool {
        self.channel.is_some() || self.socket.is_some()
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let channel = self.channel.iter().map(AsFd::as_fd).map(Slot::readable);
        channel.chain(self.socket.iter().flat_map(ControlSocket::slots))
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let answers = self.waiting.iter().filter_map(Waiting::due);
        let socket = self.socket.as_ref().and_then(ControlSocket::due);
        answers.chain(socket).min()
    }

    /// Does what there is to do, and returns what is wanted: of each who asks one thing at the most. Whoever goes away from
    /// the channel wants the end.
    pub fn turn(&mut self) -> Vec<Request> {
        self.give_up();
        let mut requests = Vec::new();
        let message = self.channel.as_ref().map(|it| it.receive(REQUEST_BYTES));
        match message {
            Some(Received::One(message)) => {
                if let Ok(Request { number, order }) = Request::decode(&message) {
                    requests.extend(self.take(Asker::Channel(number), order));
                }
            }
            Some(Received::Last) => {
                self.channel = None;
                requests.extend((!self.outlives).then_some(GONE));
            }
            Some(Received::None) | None => {}
        }
        let socket = self.socket.as_mut();
        for wanted in socket.map_or(Vec::new(), |socket| socket.turn(self.state)) {
            let order = wanted.request.order;
            requests.extend(self.take(Asker::Client(wanted), order));
        }
        requests
    }

    fn take(&mut self, asker: Asker, order: Order) -> Option<Request> {
        if self.waiting.len() >= MOST_WAITING {
            self.answer_to(&asker, Some(busy()));
            return None;
        }
        // 0 is nobody's, and a number comes again when its first request was given up long ago.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let (number, since) = (self.last, Instant::now());
        self.waiting.push(Waiting {
            number,
            order,
            asker,
            since,
        });
        Some(Request { number, order })
    }

    /// Answers those whom the VM does not. What it does all the same, later, changes its state then.
    fn give_up(&mut self) {
        let now = Instant::now();
        let is_late = |it: &Waiting| it.due().is_some_and(|due| due <= now);
        while let Some(place) = self.waiting.iter().position(is_late) {
            let late = &mut self.waiting[place];
            let asker = std::mem::replace(&mut late.asker, Asker::Nobody);
            if !matches!(late.order, Order::Pause | Order::Resume | Order::Suspended) {
                self.waiting.swap_remove(place);
            }
            let why = format!("{UNANSWERED} {} s", ANSWER.as_secs());
            self.answer_to(&asker, Some(failure(&why)));
        }
    }

    /// Was the VM asked something by then that it has not answered? It hears nothing else before.
    pub fn waits_since(&self, then: Instant) -> bool {
        self.waiting.iter().any(|it| it.since <= then)
    }

    /// Leaves it to another process, which has it too.
    pub fn close(&mut self) {
        (self.channel, self.ready, self.socket) = (None, None, None);
    }

    /// Passes on what a VM has told. Whoever does not read misses it: a VM's end waits for nobody.
    pub fn pass_on(&mut self, report: Report) {
        match report {
            Report::Answer { to, refused } => return self.answer(to, refused),
            Report::StoodStill { .. } => return self.tell_saver(&report),
            Report::Ready => {
                if let Some(ready) = self.ready.take() {
                    // Who does not wait any longer need not be told.
                    let _ = rustix::io::write(ready, b"ready\n");
                }
                if self.state == State::Starting {
                    self.set_state(self.first);
                }
            }
            Report::Stats(ref json) => {
                if let Some(socket) = &mut self.socket {
                    socket.keep_stats(json);
                }
            }
            _ => {}
        }
        self.tell_channel(&report);
    }

    /// Tells who has it be saved, which one at a time does.
    fn tell_saver(&mut self, report: &Report) {
        let mut waiting = self.waiting.iter();
        let saver = waiting.find(|it| it.is_saving());
        match (saver.map(|it| &it.asker), &mut self.socket) {
            (Some(Asker::Client(wanted)), Some(socket)) => socket.tell(wanted, report),
            (Some(Asker::Channel(_)), _) => self.tell_channel(report),
            _ => {}
        }
    }

    fn tell_channel(&self, report: &Report) {
        if let Some(channel) = &self.channel {
            let _ = channel.try_send(&report.encode());
        }
    }

    /// The VM does something else from now on. Its end is wanted for good.
    pub fn set_state(&mut self, state: State) {
        if self.state == State::Ending || self.state == state {
            return;
        }
        self.state = state;
        if let Some(socket) = &mut self.socket {
            socket.tell_state(state);
        }
    }

    /// Answers a request, if somebody waits for that.
    pub fn answer(&mut self, number: u32, refused: Option<Failure>) {
        let place = self.waiting.iter().position(|it| it.number == number);
        let Some(waiting) = place.map(|place| self.waiting.swap_remove(place)) else {
            return;
        };
        match waiting.order {
            Order::Pause if refused.is_none() => self.set_state(State::Paused),
            Order::Resume if refused.is_none() => self.set_state(State::Running),
            Order::Suspended if refused.is_none() => self.set_state(State::Suspended),
            _ => {}
        }
        self.answer_to(&waiting.asker, refused);
    }

    /// Hands whoever has asked for it the descriptor through which a VM tells what is to be saved. False if it cannot have
    /// one.
    pub fn hand(&mut self, number: u32, most_bytes: u64, pieces: OwnedFd) -> bool {
        let mut waiting = self.waiting.iter();
        let asker = waiting.find(|it| it.number == number).map(|it| &it.asker);
        let report = Report::Saving { most_bytes };
        match (asker, &mut self.socket, &self.channel) {
            (Some(Asker::Client(wanted)), Some(socket), _) => {
                socket.tell_with(wanted, &report, pieces);
                true
            }
            (Some(Asker::Channel(_)), _, Some(channel)) => channel
                .try_send_with(&report.encode(), pieces.as_fd())
                .is_ok(),
            _ => false,
        }
    }

    /// Answers a request that the VM does not take.
    pub fn refuse(&mut self, number: u32) {
        self.answer(number, Some(busy()));
    }

    /// Answers a request for what this process knows itself.
    pub fn answer_self(&mut self, number: u32) {
        let mut waiting = self.waiting.iter();
        let Some(waiting) = waiting.find(|it| it.number == number) else {
            return;
        };
        let refused = match (waiting.order, &waiting.asker) {
            (Order::Watch, Asker::Client(wanted)) => {
                let socket = self.socket.as_mut();
                let watches = socket.is_some_and(|socket| socket.watch(wanted));
                (!watches).then(|| failure("the VM is watched by as many as it tells"))
            }
            (Order::Watch, Asker::Channel(_) | Asker::Nobody) => {
                self.tell_channel(&Report::State(self.state));
                None
            }
            (order @ (Order::Published | Order::Interfaces), asker) => {
                let report = if order == Order::Published {
                    Report::Published(self.published.clone())
                } else {
                    Report::Interfaces(self.interfaces.clone())
                };
                match (asker, &mut self.socket) {
                    (Asker::Client(wanted), Some(socket)) => socket.tell(wanted, &report),
                    _ => self.tell_channel(&report),
                }
                None
            }
            _ => None,
        };
        self.answer(number, refused);
    }

    fn answer_to(&mut self, asker: &Asker, refused: Option<Failure>) {
        match (asker, &mut self.socket, self.vm) {
            (Asker::Channel(to), _, _) => {
                let to = *to;
                self.tell_channel(&Report::Answer { to, refused });
            }
            (Asker::Client(wanted), Some(socket), Some(vm)) => {
                socket.answer(wanted, refused, vm, self.state);
            }
            (Asker::Client(_) | Asker::Nobody, _, _) => {}
        }
    }

    /// Tells how the run has ended, once there is room for that: all is cleared away by now.
    pub fn tell_end(&mut self, outcome: &Result<Outcome, Error>, dialect: Dialect) {
        let outcome = match outcome {
            Ok(outcome) => outcome.clone(),
            Err(error) => error.outcome_in(dialect),
        };
        let end = Report::Ended(Box::new(outcome));
        if let Some(socket) = &mut self.socket {
            socket.tell_end(&end);
        }
        if let Some(channel) = &self.channel {
            let _ = wait::one(Slot::writable(channel.as_fd()), Until::after(PATIENCE));
            self.tell_channel(&end);
        }
    }
}

fn busy() -> Failure {
    let mut busy = failure("the VM does not take any more requests for now");
    busy.help = Some("try again".into());
    busy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_late_changes_the_state() {
        let (here, there) = Channel::pair().unwrap();
        let mut upstream = Upstream::new(here, false);
        upstream.set_state(State::Running);
        let asked = upstream.take(Asker::Channel(7), Order::Pause).unwrap();
        upstream.waiting[0].since -= ANSWER;
        upstream.give_up();
        let Received::One(told) = there.receive(REQUEST_BYTES) else {
            panic!("nothing is told");
        };
        let told = Report::decode(&told).unwrap();
        assert!(matches!(
            told,
            Report::Answer {
                to: 7,
                refused: Some(_)
            }
        ));
        assert_eq!((upstream.state, upstream.due()), (State::Running, None));
        upstream.answer(asked.number, None);
        assert_eq!(upstream.state, State::Paused);
        assert!(upstream.waiting.is_empty());
        // Nobody is told a second time.
        assert!(matches!(there.receive(REQUEST_BYTES), Received::None));
    }
}
