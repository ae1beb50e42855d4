//! `kvmlet ps`.

use super::format::Format;
use super::instances::row::{heading, row};
use super::instances::{book, is_alive};
use super::ports::Ports;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Filters, Moment, State, View};
use kvmlet_sys::standard_error;

const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// List instances.
#[derive(Args)]
pub(super) struct Ps {
    /// Those that do not run, too.
    #[arg(short, long)]
    all: bool,
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut ids and commands.
    #[arg(long)]
    no_trunc: bool,
    /// The last N that were made, whatever they do.
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// The one that was made last, whatever it does.
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Those that pass: KEY=VALUE, where KEY is ancestor, exited, health, id, label, name or status; can be given again.
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// How to print: json, table, a template of fields such as {{.Names}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Ps {
    pub fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let filters = filters(&self.filter)?;
        let book = book()?;
        let listing = book.list()?;
        for damaged in &listing.damaged {
            let called = damaged
                .name
                .as_ref()
                .map_or(damaged.id.short(), |name| name.as_str());
            let error = &damaged.error;
            standard_error::say(format_args!(
                "kvmlet: instance `{called}` is left out: {error}"
            ));
        }
        let last = self.last.or(self.latest.then_some(1));
        let any = self.all || last.is_some() || filters.asks_for_state();
        let wanted = |view: &&View| (any || runs(view)) && filters.pass(view);
        let views = listing
            .instances
            .iter()
            .filter(wanted)
            .take(last.unwrap_or(usize::MAX));
        let now = Moment::now();
        if self.quiet {
            let ids = views.map(|view| match self.no_trunc {
                true => format!("{}\n", view.id),
                false => format!("{}\n", view.id.short()),
            });
            kvmlet_command::print(ids.collect::<String>())?;
            return Ok(0);
        }
        let ports = Ports::of(&book);
        let row = |view| row(view, ports.published(view), now, self.no_trunc);
        let rows: Vec<_> = views.map(row).collect();
        kvmlet_command::print(format.render(&rows, heading)?)?;
        Ok(0)
    }
}

fn runs(view: &View) -> bool {
    // One that is suspended has not ended, and is not to be forgotten.
    view.state == State::Suspended || is_alive(view) && view.state != State::Created
}

/// All filters of a command line.
pub(super) fn filters(texts: &[String]) -> Result<Filters, Failed> {
    let mut filters = Filters::default();
    for text in texts {
        filters.add(text).map_err(Failed::new)?;
    }
    Ok(filters)
}
