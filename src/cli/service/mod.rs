//! `kvmlet run`: a service in a VM of its own, as an instance with a name, by docker's words.

mod described;
mod flags;
mod health;
mod root;

use super::instances::row::code;
use super::instances::{book, look, signal, tell};
use super::keep::{NotStarted, Starting, detach};
use super::logs::{follow, print};
use super::session::{Left, Session, SessionError, Wanted};
use super::{Failed, Outcome};
use clap::Args;
pub(super) use described::{variable, variable_of};
use flags::Flags;
use kvmlet_manager::logs::{Reader, Selection, Stream, Streams};
use kvmlet_manager::{Book, Instance, Moment};
use kvmlet_spec::supervision::RestartPolicy;
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::standard_error;
use kvmlet_sys::wait::{self, Slot, Until};
use root::Root;
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Run a service in a microVM of its own, with a name by which other commands know it.
///
/// Flags mean what they mean to docker. What a machine is made of (kernel, disks, interfaces) is said to `kvmlet boot`.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    flags: Flags,
    /// Return when the VM runs, and print its id.
    #[arg(short, long)]
    detach: bool,
    /// Write the id to a file, which must not be there.
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Image of a root file system (erofs or ext4), or a directory, of which one is made.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The service to run, with its arguments, instead of the image's own.
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> Outcome {
        let book = book()?;
        let root = Root::find(&self.image)?;
        let name = self.flags.name.clone();
        let asked = self.flags.asked(&book, &self.image, &root, self.command)?;
        // Before anything is made: it says that there was none.
        let idfile = self.cidfile.as_deref().map(|path| {
            let failed =
                |error| Failed::in_vain(format!("cannot make `{}`", path.display()), error);
            File::create_new(path).map_err(failed)
        });
        let idfile = idfile.transpose()?;
        let (id, remove) = (asked.id.clone(), asked.remove);
        let restarts = asked.restart != RestartPolicy::No;
        let wanted = Wanted {
            input: asked.service.input,
            terminal: asked.service.terminal,
            group: false,
        };
        let (instance, _) = book.create(name.as_ref(), asked)?;
        let (_, view) = look(&book, id.as_str())?;
        tell(
            &book,
            "create",
            &view,
            [("image", view.asked.image.clone())],
        );
        if let Some(mut file) = idfile {
            file.write_all(id.as_str().as_bytes())
                .map_err(Failed::new)?;
        }
        let forget = || match instance.own() {
            Ok(owned) => book.remove(owned),
            Err(_) => Ok(()),
        };
        if let Err(failed) = root.pack(&instance) {
            forget()?;
            return Err(failed);
        }
        let ended = match self.detach {
            true => detach(&id).map(|()| None),
            // Who starts it again and again, follows what it writes.
            false if restarts && !wanted.input && !wanted.terminal => {
                detach(&id).and_then(|()| Ok(Some(follow_all(&book, &instance)?)))
            }
            false => attend(&instance, wanted).map(Some),
        };
        match ended {
            Ok(None) => {
                kvmlet_command::print(format!("{id}\n"))?;
                Ok(0)
            }
            Ok(Some(code)) => Ok(code),
            Err(NotStarted { failed, code }) => {
                // As docker does: what was asked is kept, for who wants to look, unless that was not wanted.
                if remove {
                    forget()?;
                }
                failed.print();
                Ok(code)
            }
        }
    }
}

/// Runs it with its streams on those of this process, until it has ended or is left to itself.
fn attend(instance: &Instance, wanted: Wanted) -> Result<u8, NotStarted> {
    let mut starting = Starting::begin(instance.id(), true)?;
    let agent = starting.attach(instance)?;
    let since = Moment::now();
    match Session::new(agent, wanted).and_then(Session::run) {
        Ok(Left::Detached) => Ok(0),
        Ok(Left::Ended(_)) => starting.finish(),
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
pub(super) struct Words(Option<Reader>);

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
            while wait::one(slot, Until::Forever).is_ok() {
                let Ok(Some(number)) = signals.next() else {
                    continue;
                };
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
