//! An instance that was just made, and is started.

use crate::exit_code::ExitCode;
use crate::instances::row::code;
use crate::instances::{look, signal, tell_of};
use crate::keep::NotStarted;
use crate::logs::{follow, print};
use crate::session::{Left, MOST_SIGNALS, Session, SessionError, Wanted};
use crate::{Failed, Outcome};
use kvmlet_manager::logs::{Reader, Selection, Stream, Streams};
use kvmlet_manager::starting::{Starting, Waiting};
use kvmlet_manager::volumes::remove_with;
use kvmlet_manager::{Asked, Book, Instance, Moment, Name, Turn};
use kvmlet_spec::supervision::RestartPolicy;
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::standard_error;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::Signal;
use std::os::fd::{AsFd, OwnedFd};

/// What whoever has asked for it does, once it runs.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing.
    Leave,
    /// Who starts it again and again, follows what it writes.
    Follow,
    /// Its streams are those of this process, until it has ended or is left to itself.
    Attend(Wanted),
}

impl Then {
    fn of(asked: &Asked, wanted: Wanted, detached: bool) -> Self {
        let restarts = asked.restart != RestartPolicy::No;
        match detached {
            true => Self::Leave,
            false if restarts && !wanted.input && !wanted.terminal => Self::Follow,
            false => Self::Attend(wanted),
        }
    }
}

/// One that does not run yet. Nobody else starts or removes it.
pub(crate) struct Made<'a> {
    book: &'a Book,
    pub instance: Instance,
    name: Name,
    asked: Asked,
    turn: Turn,
    supervisor: Waiting,
    then: Then,
}

impl<'a> Made<'a> {
    /// Puts one into the book, which is told; its supervisor has begun. Unless it is detached, its streams are going to be
    /// those of this process.
    pub fn new(
        book: &'a Book,
        name: Option<&Name>,
        asked: Asked,
        supervisor: Waiting,
        wanted: Wanted,
        detached: bool,
    ) -> Result<Self, Failed> {
        let then = Then::of(&asked, wanted, detached);
        let (instance, name, turn) = book.create_in_turn(name, asked.clone())?;
        let made = Self {
            book,
            instance,
            name,
            asked,
            turn,
            supervisor,
            then,
        };
        let image = [("image", made.asked.image.clone())];
        tell_of(book, "create", &made.asked.id, Some(&made.name), image);
        Ok(made)
    }

    /// Takes it out of the book again, with what was made for it alone.
    pub fn forget(&self) -> Result<(), Failed> {
        match self.instance.own() {
            Ok(owned) => Ok(remove_with(self.book, &self.asked, || {
                self.book.remove(owned)
            })?),
            Err(_) => Ok(()),
        }
    }

    /// Starts it. Whoever waits for the service to be well is told by `ready`.
    pub fn start(self, ready: Option<OwnedFd>) -> Outcome {
        let started = self.start_or_not(ready);
        started.or_else(|not_started| not_started.give_up())
    }

    /// The same; returns one that has not come to run.
    pub fn start_or_not(self, ready: Option<OwnedFd>) -> Result<u8, Box<Unstarted<'a>>> {
        let Self {
            book,
            instance,
            name,
            asked,
            turn,
            supervisor,
            then,
        } = self;
        let attended = matches!(then, Then::Attend(_));
        let starting = supervisor.go_on(turn, attended, ready);
        let ended = match then {
            Then::Leave => starting.wait().map_err(NotStarted::from).map(|_| {
                kvmlet_command::print_name(&asked.id, "instance runs:");
                0
            }),
            Then::Follow => starting
                .wait()
                .map_err(NotStarted::from)
                .and_then(|_| Ok(follow_all(book, &instance)?)),
            Then::Attend(wanted) => attend(&instance, starting, wanted),
        };
        ended.map_err(|why| {
            Box::new(Unstarted {
                book,
                instance,
                name,
                asked,
                why,
            })
        })
    }
}

/// One that was started, and has not come to run.
pub(crate) struct Unstarted<'a> {
    book: &'a Book,
    instance: Instance,
    name: Name,
    asked: Asked,
    why: NotStarted,
}

impl Unstarted<'_> {
    /// Has somebody stopped it?
    pub fn was_stopped(&self) -> bool {
        self.instance.record().is_ok_and(|record| record.stopped)
    }

    /// Takes it out of the book, for another to be made of the same.
    pub fn forget(self) -> Result<Failed, Failed> {
        // Its supervisor has done so already where there never was a VM.
        if let Ok(owned) = self.instance.own() {
            self.book.remove(owned)?;
            let name = Some(&self.name);
            tell_of(self.book, "destroy", &self.asked.id, name, []);
        }
        Ok(self.why.failed)
    }

    /// Tells why, and returns the exit code. What its guest has said is kept, for who wants to look, unless that was not wanted.
    /// Of one that had no supervisor there is nothing.
    pub fn give_up(self) -> Outcome {
        let record = self.instance.record();
        let never_was = record.is_ok_and(|record| record.run == 0);
        if (self.asked.remove || never_was)
            && let Ok(owned) = self.instance.own()
        {
            remove_with(self.book, &self.asked, || self.book.remove(owned))?;
            let name = Some(&self.name);
            tell_of(self.book, "destroy", &self.asked.id, name, []);
        }
        self.why.failed.print();
        Ok(self.why.code)
    }
}

/// Runs it with its streams on those of this process, until it has ended or is left to itself.
fn attend(instance: &Instance, starting: Starting, wanted: Wanted) -> Result<u8, NotStarted> {
    let (starting, agent) = starting.attach(instance)?;
    let since = Moment::now();
    match Session::new(agent, wanted).and_then(Session::run) {
        Ok(Left::Detached) => Ok(0),
        Ok(Left::Signal(signal)) => Ok(ExitCode::Signal(signal).number()),
        Ok(Left::Ended(_)) => Ok(starting.finish()?),
        Err(error) => {
            let words = Words::of(instance, since);
            // What has never run says why itself.
            let code = starting.finish()?;
            match error {
                SessionError::Agent(_) => words.tell(),
                error => drop(error.tell(instance.id().short())),
            }
            Ok(code)
        }
    }
}

/// What kvmlet has said about an instance since then: opened before that may be removed, told when it has ended.
pub(crate) struct Words(Option<Reader>);

impl Words {
    pub fn of(instance: &Instance, since: Moment) -> Self {
        let selection = Selection {
            since: Some(since),
            streams: Streams::All,
            ..Selection::default()
        };
        Self(Reader::open(instance.directory(), &selection).ok())
    }

    pub fn tell(self) {
        let Some(mut reader) = self.0 else {
            return;
        };
        while let Ok(Some(entry)) = reader.next() {
            if entry.stream == Stream::Kvmlet {
                standard_error::tell(&entry.text);
            }
        }
    }
}

/// Prints what it writes, and passes signals on, until it has ended.
fn follow_all(book: &Book, instance: &Instance) -> Outcome {
    let signals = Signals::take(&ENDING).map_err(Failed::new)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slot = Slot::readable(signals.as_fd());
            let mut asked = 0;
            while wait::one(slot, Until::Forever).is_ok() {
                let Ok(Some(number)) = signals.next() else {
                    continue;
                };
                asked += 1;
                if asked == MOST_SIGNALS {
                    std::process::exit(ExitCode::Signal(number).number().into());
                }
                let by = Signal::from_named_raw(number).unwrap_or(Signal::TERM);
                if let Ok((_, view)) = look(book, instance.id().as_str()) {
                    let _ = signal(instance, &view, by);
                }
            }
        });
        let selection = Selection {
            streams: Streams::All,
            ..Selection::default()
        };
        follow(instance, &selection, |entry| match entry.stream {
            Stream::Console => Ok(true),
            _ => print(entry, false),
        })?;
        let code = code(&instance.wait()?);
        // The other thread waits for signals, and for nothing that has to end.
        kvmlet_sys::standard_error::finish();
        std::process::exit(code.into())
    })
}
