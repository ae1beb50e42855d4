//! A VM that is attended: input, signals and orders, until it has ended.

use super::input::Input;
use super::{Console, End};
use crate::Error;
use crate::changes::change;
use crate::contact::Contact;
use crate::saving::{Progress, Telling};
use crate::silence::Silence;
use crate::stopping::{Answer, Stopping};
use kvmlet_control::{Order, REQUEST_BYTES, Received, Request};
use kvmlet_spec::Dialect;
use kvmlet_sys::settling::Settling;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::vm::{State, VmHandle};
use rustix::stdio::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connects standard input to the guest until the VM ends. Who wants its end has the guest asked for it, or cuts its power
/// where that is [`stopping`](Stopping)'s answer.
pub(crate) fn attend(
    vm: &VmHandle,
    console: &mut Console,
    stopping: Stopping,
    silence: Silence,
    contact: &Contact,
) -> Result<End, Error> {
    let attendance = Attendance {
        vm,
        untouched: vm.state() == State::Paused,
        console,
        stopping,
        silence,
        contact,
        input: Input::new(),
        settling: Settling::begin(),
        wish: None,
        telling: None,
    };
    let end = attendance.until_end()?;
    if !matches!(end, End::Guest(_)) {
        vm.stop();
    }
    Ok(end)
}

struct Attendance<'a> {
    vm: &'a VmHandle,
    /// It was made to stand still, and has not run: its guest has nothing to bring to an end.
    untouched: bool,
    console: &'a mut Console,
    stopping: Stopping,
    silence: Silence,
    contact: &'a Contact,
    input: Input,
    settling: Settling,
    /// Who has asked for the end.
    wish: Option<End>,
    /// To whom the VM is told, which is being saved.
    telling: Option<Telling>,
}

/// What somebody wants of a VM's end.
enum Wanted {
    /// Nothing.
    Nothing,
    /// That the guest ends.
    Asked(End),
    /// That it is over.
    Now(End),
}

impl Wanted {
    /// Of a guest that is not asked any more.
    fn at_once(self) -> Self {
        match self {
            Self::Asked(end) => Self::Now(end),
            other => other,
        }
    }
}

impl Attendance<'_> {
    fn until_end(mut self) -> Result<End, Error> {
        let vm = self.vm;
        let taken = vm.console().wanted();
        loop {
            let look = self.console.follow_foreground();
            let stdin = stdin();
            let keys = self.console.has_keys();
            let reads = (keys || !self.console.has_terminal()) && self.input.wants_more(keys);
            let channel = self.contact.channel().map(AsFd::as_fd);
            let slots = [
                Slot::readable(vm.ended()),
                Slot::readable(self.console.signals().as_fd()),
                Slot::readable(taken.as_fd()),
                channel.map_or(Slot::NOTHING, Slot::readable),
                if reads {
                    Slot::readable(stdin)
                } else {
                    Slot::NOTHING
                },
                self.telling.as_ref().map_or(Slot::NOTHING, Telling::slot),
            ];
            let settled = self.settling.due();
            let settled = settled.map(|due| due.saturating_duration_since(Instant::now()));
            let due = [self.stopping.due(), self.silence.due(), look, settled];
            let due: Option<Duration> = due.into_iter().flatten().min();
            let until = due.map_or(Until::Forever, Until::after);
            let come = wait::any(slots, until).map_err(Self::no_events)?;
            let [ended, signalled, wants, ordered, readable, room] = come;
            if ended {
                let reason = vm.wait()?;
                return Ok(match self.wish {
                    // That the service has ended is what was wanted.
                    Some(End::Escape) => End::Escape,
                    _ => End::Guest(reason),
                });
            }
            self.settling.look();
            let mut wanted = Wanted::Nothing;
            if signalled {
                wanted = self.signal()?;
            }
            if ordered && matches!(wanted, Wanted::Nothing) {
                wanted = self.order();
            }
            if room {
                self.tell();
            }
            if self.telling.as_ref().is_some_and(Telling::sleeps) {
                // It would do what nobody has saved.
                wanted = wanted.at_once();
            } else if !matches!(wanted, Wanted::Nothing) {
                self.tell_no_more();
            }
            self.silence.look(vm);
            if wants {
                taken.take();
            }
            if readable && self.input.read(keys) {
                wanted = Wanted::Asked(End::Escape);
            }
            self.input.pass_on(|bytes| vm.console().send(bytes));
            let answer = match wanted {
                Wanted::Now(end) => return Ok(end),
                Wanted::Asked(end) => {
                    self.wish = Some(end);
                    self.stopping.ask(vm)
                }
                Wanted::Nothing => self.stopping.go_on(vm),
            };
            if let (Answer::Cut, Some(end)) = (answer, self.wish) {
                return Ok(end);
            }
        }
    }

    fn no_events(source: std::io::Error) -> Error {
        let what = "events";
        Error::Host { what, source }
    }

    /// A signal has come to this process. Those that stop it and have it go on are for the supervisor, if there is one.
    fn signal(&mut self) -> Result<Wanted, Error> {
        let signal = self.console.signals().next().map_err(Self::no_events)?;
        let attended = self.contact.channel().is_some();
        match signal {
            None => {}
            Some(libc::SIGUSR1) => self.contact.tell_stats_now(self.vm),
            Some(libc::SIGTSTP | libc::SIGCONT) if attended => {}
            Some(libc::SIGTSTP) => self.console.suspend(),
            Some(libc::SIGCONT) => self.console.resume(),
            Some(libc::SIGQUIT) => return Ok(Wanted::Now(End::Signal(libc::SIGQUIT))),
            Some(signal) => return Ok(Wanted::Asked(End::Signal(signal))),
        }
        if let Some(libc::SIGTSTP | libc::SIGCONT) = signal {
            self.silence.begin_again();
            self.vm.tell_of_stop();
        }
        Ok(Wanted::Nothing)
    }

    /// Goes on telling of a VM that is being saved.
    fn tell(&mut self) {
        let Some(telling) = &mut self.telling else {
            return;
        };
        if telling.sleeps() {
            // Whoever was told may have said that it is kept, and be gone, in one turn.
            return;
        }
        if telling.waits() {
            return self.wake();
        }
        let Progress::Over(told) = telling.go_on(self.vm) else {
            return;
        };
        if told.is_ok() && telling.stands_still() {
            return self.contact.answer(telling.number, None);
        }
        self.end_telling(told);
    }

    /// Has a VM go on that has stood still since all of it was told.
    fn wake(&mut self) {
        if let Some(telling) = self.telling.take() {
            telling.end(self.vm);
            self.silence.begin_again();
        }
    }

    /// Whoever wants the end of a VM does not wait until it is saved.
    fn tell_no_more(&mut self) {
        match &self.telling {
            Some(telling) if telling.waits() => self.wake(),
            Some(_) => self.end_telling(Err(Error::Unwanted)),
            None => {}
        }
    }

    fn end_telling(&mut self, told: Result<(), Error>) {
        let Some(telling) = self.telling.take() else {
            return;
        };
        let number = telling.number;
        // It goes on first: who hears that it is saved may ask it for something.
        let stood_still = telling.end(self.vm);
        self.silence.begin_again();
        let refused = told.err().map(|error| error.told_in(Dialect::File));
        if refused.is_none() {
            self.contact.tell_pause(stood_still);
        }
        self.contact.answer(number, refused);
    }

    /// Begins to tell of the VM, through that stream.
    fn begin_to_tell(&mut self, request: Request, to: OwnedFd) {
        let number = request.number;
        let begun = match &self.telling {
            None => Telling::begin(self.vm, request, to),
            Some(_) => Err(kvmlet_vmm::Error::BeingSaved.into()),
        };
        match begun {
            Ok(telling) => self.telling = Some(telling),
            Err(error) => self
                .contact
                .answer(number, Some(error.told_in(Dialect::File))),
        }
    }

    /// The supervisor wants something, or has ended. The kernel's signal does not come if that is killed while this process
    /// changes its user: the first thread, which may send it, is gone when it is asked for, and others may still be ending.
    fn order(&mut self) -> Wanted {
        let channel = self.contact.channel();
        let nothing = (Received::None, None);
        let (received, descriptor) =
            channel.map_or(nothing, |channel| channel.receive_with(REQUEST_BYTES));
        let request = match received {
            Received::Last => return Wanted::Now(End::Signal(libc::SIGKILL)),
            Received::None => return Wanted::Nothing,
            Received::One(message) => Request::decode(&message),
        };
        let Ok(Request { number, order }) = request else {
            return Wanted::Nothing;
        };
        let done = match order {
            Order::Stats => {
                self.contact.tell_stats_now(self.vm);
                Ok(())
            }
            Order::Pause => self.vm.pause().map_err(Error::from),
            Order::Resume if self.telling.as_ref().is_some_and(Telling::sleeps) => {
                self.wake();
                Ok(())
            }
            Order::Resume => {
                self.silence.begin_again();
                self.untouched = false;
                self.vm.resume().map_err(Error::from)
            }
            Order::Suspended => {
                let sleeps = self.telling.as_mut().is_some_and(Telling::sleep);
                sleeps.then_some(()).ok_or(Error::NotSaved)
            }
            Order::Stop {
                patience_ms: Some(0),
            } => return Wanted::Now(End::Ordered),
            Order::Stop { .. } if self.telling.as_ref().is_some_and(Telling::sleeps) => {
                return Wanted::Now(End::Ordered);
            }
            Order::Stop { .. } if self.untouched => return Wanted::Now(End::Ordered),
            Order::Stop { patience_ms } => {
                self.tell_no_more();
                if self.vm.state() == State::Paused {
                    // A guest that stands still hears nothing.
                    let _ = self.vm.resume();
                }
                if let Some(patience) = patience_ms {
                    self.stopping
                        .set_patience(Duration::from_millis(patience.into()));
                }
                return Wanted::Asked(End::Ordered);
            }
            order if order.is_saving() => {
                if let Some(to) = descriptor {
                    self.begin_to_tell(Request { number, order }, to);
                }
                return Wanted::Nothing;
            }
            order => match change(self.vm, order) {
                Some(done) => done,
                // One that a later supervisor knows.
                None => return Wanted::Nothing,
            },
        };
        let refused = done.err().map(|error| error.told_in(Dialect::File));
        self.contact.answer(number, refused);
        Wanted::Nothing
    }
}
