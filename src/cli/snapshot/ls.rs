//! `kvmlet snapshot ls`.

use super::found::{heading, row};
use crate::Outcome;
use crate::format::Format;
use crate::instances::book;
use clap::Args;
use kvmlet_manager::{Moment, Snapshots};

const TABLE: &str = "{{.ID}}\t{{.Instance}}\t{{.Image}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Kind}}\t{{.Status}}\t{{.File}}";

/// List the snapshots of instances that this user has taken, and whether their files are there.
#[derive(Args)]
pub(super) struct Ls {
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut ids and paths.
    #[arg(long)]
    no_trunc: bool,
    /// How to print: json, table, a template of fields such as {{.ID}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Ls {
    pub fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let all = Snapshots::of(&book()?)?.list()?;
        let text = match self.quiet {
            true => {
                let ids = all.iter().map(|kept| match self.no_trunc {
                    true => format!("{}\n", kept.id),
                    false => format!("{}\n", kept.id.short()),
                });
                ids.collect()
            }
            false => {
                let now = Moment::now();
                let rows = all.iter().map(|kept| row(kept, now, self.no_trunc));
                format.render(&rows.collect::<Vec<_>>(), heading)?
            }
        };
        kvmlet_command::print(text)?;
        Ok(0)
    }
}
