//! `kvmlet stats`.

mod row;

use super::format::Format;
use super::instances::{book, is_alive, look};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Book, Error, State, View};
use row::{Sample, heading, row};
use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.VCPUPerc}}\t{{.VMMPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.HostMem}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.Exits}}";
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Between the first two, of which the first table is made.
const FIRST_PERIOD: Duration = Duration::from_millis(500);
/// Clears a terminal, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Show what instances use of the host: CPU time, memory, disks, networks; anew each second.
#[derive(Args)]
pub(super) struct Stats {
    /// Those that do not run, too.
    #[arg(short, long)]
    all: bool,
    /// Show it once.
    #[arg(long)]
    no_stream: bool,
    /// Do not cut ids.
    #[arg(long)]
    no_trunc: bool,
    /// How to print: json, table, a template of fields such as {{.Name}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names, ids, or beginnings of ids; all that run if none is said.
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// What was seen of each, by its id.
type Samples = BTreeMap<String, Sample>;

impl Stats {
    pub fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let book = book()?;
        let views = self.views(&book)?;
        if let Some(view) = views.iter().find(|view| !self.all && !runs(view)) {
            let (called, state) = (view.called().to_owned(), view.state);
            return Err(Error::NotRunning { called, state }.into());
        }
        let mut before = self.look(&book, &views)?;
        let mut period = FIRST_PERIOD;
        loop {
            std::thread::sleep(period);
            period = PERIOD;
            let since = Instant::now();
            let views = self.views(&book)?;
            let now = self.look(&book, &views)?;
            let rows = views.iter().map(|view| {
                let id = view.id.as_str();
                row(view, before.get(id), now.get(id), self.no_trunc)
            });
            let rows: Vec<_> = rows.collect();
            let text = format.render(&rows, heading)?;
            match self.no_stream {
                false if stdout().is_terminal() => kvmlet_command::print(format!("{CLEAR}{text}"))?,
                _ => kvmlet_command::print(text)?,
            }
            let is_over = !self.instances.is_empty() && now.is_empty() && !self.all;
            if self.no_stream || is_over {
                return Ok(0);
            }
            before = now;
            period = period.saturating_sub(since.elapsed());
        }
    }

    /// Those that are shown.
    fn views(&self, book: &Book) -> Result<Vec<View>, Failed> {
        if self.instances.is_empty() {
            let views = book.list()?.instances.into_iter();
            return Ok(views.filter(|view| self.all || runs(view)).collect());
        }
        let mut views = Vec::new();
        for reference in &self.instances {
            let (_, view) = look(book, reference)?;
            views.push(view);
        }
        Ok(views)
    }

    /// What those that run have done so far. Who has ended meanwhile has no more to say.
    fn look(&self, book: &Book, views: &[View]) -> Result<Samples, Failed> {
        let mut samples = Samples::new();
        for view in views.iter().filter(|view| runs(view)) {
            let instance = match book.find(view.id.as_str()) {
                Err(Error::NotFound { .. }) => continue,
                found => found?,
            };
            let stats = instance
                .control(view.called())
                .and_then(|mut control| control.stats());
            match stats {
                Ok(stats) => {
                    let at = Instant::now();
                    samples.insert(view.id.as_str().into(), Sample { at, stats });
                }
                Err(Error::NotRunning { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(samples)
    }
}

fn runs(view: &View) -> bool {
    is_alive(view) && matches!(view.state, State::Running | State::Paused)
}
