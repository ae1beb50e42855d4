//! `kvmlet logs`.

use super::exit_code::ExitCode;
use super::instances::book;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::logs::{Entry, Follower, Reader, Selection, Stream, Streams};
use kvmlet_manager::{Instance, Moment, NotAMoment};
use kvmlet_spec::supervision::Span;
use kvmlet_sys::output::write_whole;
use rustix::stdio::{stderr, stdout};
use std::io;
use std::os::fd::AsFd;

/// Print what an instance has written.
#[derive(Args)]
pub(super) struct Logs {
    /// Go on as it writes, until it has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines.
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, default_value = "all")]
    tail: Tail,
    /// Only what was written since then: 10m, 2026-11-28T17:54:26Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Only what was written until then.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// What the guest's kernel and init have said as well, at its console, and kvmlet itself: why a service was stopped, say.
    #[arg(long)]
    console: bool,
    /// Print the time of each line.
    #[arg(short, long)]
    timestamps: bool,
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

/// A point in time, or how long ago it was.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(span) = text.parse::<Span>() {
        return Ok(Moment::now().before(span.duration()));
    }
    text.parse().map_err(|error: NotAMoment| error.to_string())
}

/// How many lines; none is all.
#[derive(Clone, Copy)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        text => {
            let number = text.parse().map(|number| Tail(Some(number)));
            number.map_err(|_| "a number of lines is a whole number, or `all`".into())
        }
    }
}

impl Logs {
    pub fn run(self) -> Outcome {
        let instance = book()?.find(&self.instance)?;
        let selection = Selection {
            tail: self.tail.0,
            since: self.since,
            until: self.until,
            streams: match self.console {
                true => Streams::All,
                false => Streams::Service,
            },
        };
        let print = |entry: &Entry| print(entry, self.timestamps);
        match self.follow {
            true => follow(&instance, &selection, print)?,
            false => {
                let mut reader =
                    Reader::open(instance.directory(), &selection).map_err(Failed::new)?;
                while let Some(entry) = reader.next().map_err(Failed::new)? {
                    if !print(&entry)? {
                        break;
                    }
                }
            }
        }
        Ok(0)
    }
}

/// Prints what is written until the instance has ended, or nobody reads any more.
pub(super) fn follow(
    instance: &Instance,
    selection: &Selection,
    mut print: impl FnMut(&Entry) -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let mut follower = Follower::open(instance.directory(), selection).map_err(Failed::new)?;
    let (end, ended) = io::pipe().map_err(Failed::new)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever comes of it, there is no more.
            let _ = instance.wait();
            drop(ended);
        });
        loop {
            let next = follower.next(end.as_fd()).map_err(Failed::new);
            let code = match next.and_then(|next| next.map(|entry| print(&entry)).transpose()) {
                Ok(None) => return Ok(()),
                Ok(Some(true)) => continue,
                Ok(Some(false)) => 0,
                Err(failed) => {
                    failed.print();
                    ExitCode::NotDone.number()
                }
            };
            // The other thread, which waits for the instance, is not waited for.
            std::process::exit(code.into());
        }
    })
}

/// Prints an entry where it was written; false if nobody reads any more.
pub(super) fn print(entry: &Entry, timestamps: bool) -> Result<bool, Failed> {
    let mut line = Vec::with_capacity(entry.text.len() + 40);
    if timestamps {
        line.extend(format!("{} ", entry.time).bytes());
    }
    line.extend(&entry.text);
    // Here they are what was asked for, and not what may be dropped.
    let is_error = matches!(
        entry.stream,
        Stream::Stderr | Stream::Kvmlet | Stream::Dropped
    );
    let written = match is_error {
        true => write_whole(stderr(), &line),
        false => write_whole(stdout(), &line),
    };
    match written {
        Ok(()) => Ok(true),
        // The other stream may be read still.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(is_error),
        Err(error) => {
            let which = if is_error { "error" } else { "output" };
            let said = format!("cannot write to standard {which}");
            Err(Failed::in_vain(said, error))
        }
    }
}
