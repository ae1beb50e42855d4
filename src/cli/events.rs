//! `kvmlet events`.

use super::instances::book;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_command::plain::json;
use kvmlet_manager::Moment;
use kvmlet_manager::events::{Event, EventReader, EventSelection};
use std::io;
use std::os::fd::AsFd;

/// Print what happens to instances as it happens, one JSON object a line.
#[derive(Args)]
pub(super) struct Events {
    /// What has happened since then, too: the number of the last event that is known, as `#7`, or 10m,
    /// 2026-11-28T17:54:26Z, or seconds since 1970.
    #[arg(long, value_name = "WHEN", value_parser = selection)]
    since: Option<EventSelection>,
    /// Only what has happened until then, and then end.
    #[arg(long, value_name = "TIME", value_parser = super::logs::moment)]
    until: Option<Moment>,
}

fn selection(text: &str) -> Result<EventSelection, String> {
    if let Some(number) = text.strip_prefix('#') {
        let number = number.parse().map(EventSelection::After);
        return number.map_err(|_| "the number of an event is a whole number, as `#7`".into());
    }
    super::logs::moment(text).map(EventSelection::Since)
}

impl Events {
    pub fn run(self) -> Outcome {
        let since = match (self.since, self.until) {
            (Some(since), _) => since,
            (None, None) => EventSelection::New,
            (None, Some(_)) => EventSelection::All,
        };
        let mut reader = EventReader::open(&book()?, since).map_err(Failed::new)?;
        let (end, ended) = io::pipe().map_err(Failed::new)?;
        if let Some(until) = self.until {
            let left = until.since(Moment::now());
            std::thread::spawn(move || {
                std::thread::sleep(left);
                drop(ended);
            });
            return self.print(|| reader.wait(end.as_fd()));
        }
        self.print(|| reader.wait(end.as_fd()))
    }

    fn print(&self, mut next: impl FnMut() -> io::Result<Option<Event>>) -> Outcome {
        while let Some(event) = next().map_err(Failed::new)? {
            if self.until.is_some_and(|until| event.time > until) {
                break;
            }
            let line = json(&event)? + "\n";
            kvmlet_command::print(line)?;
        }
        Ok(0)
    }
}
