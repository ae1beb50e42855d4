//! `kvmlet pool ls`.

use super::warm;
use crate::Outcome;
use crate::format::Format;
use crate::instances::book;
use clap::Args;
use kvmlet_command::shown::span;
use kvmlet_manager::{Moment, PoolView, Pools};
use serde_json::{Value, json};
use std::ffi::OsStr;

const TABLE: &str =
    "{{.Name}}\t{{.Ready}}\t{{.Size}}\t{{.Taken}}\t{{.CreatedSince}}\t{{.File}}\t{{.Status}}";

/// List the pools of this user.
#[derive(Args)]
pub(super) struct Ls {
    /// Print names only.
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut paths.
    #[arg(long)]
    no_trunc: bool,
    /// How to print: json, table, a template of fields such as {{.Name}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Ls {
    pub fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let book = book()?;
        let pools = Pools::of(&book)?;
        let mut all = pools.list()?;
        for PoolView { note, status } in &mut all {
            if let (Some(_), Some(status)) = (&note.instances, status) {
                status.ready = warm::ready(&book, note);
            }
        }
        let text = match self.quiet {
            true => all
                .iter()
                .map(|pool| format!("{}\n", pool.note.name))
                .collect(),
            false => {
                let rows = all.iter().map(|pool| row(&pools, pool, self.no_trunc));
                format.render(&rows.collect::<Vec<_>>(), heading)?
            }
        };
        kvmlet_command::print(text)?;
        Ok(0)
    }
}

fn row(pools: &Pools, pool: &PoolView, whole: bool) -> Value {
    let note = &pool.note;
    let path = match whole {
        true => Some(note.file.as_os_str()),
        false => note.file.file_name(),
    };
    let status = pool.status.as_ref();
    let count = |count: Option<u32>| count.map_or(String::new(), |count| count.to_string());
    let lack = status.and_then(|status| status.lack.as_deref());
    json!({
        "Name": note.name.as_str(),
        "Ready": count(status.map(|status| status.ready)),
        "Size": note.size.to_string(),
        "Taken": count(status.map(|status| status.taken)),
        "CreatedAt": note.made,
        "CreatedSince": format!("{} ago", span(Moment::now().since(note.made))),
        "File": path.and_then(OsStr::to_str).unwrap_or_default(),
        "Socket": match &note.instances {
            Some(_) => String::new(),
            None => pools.socket(&note.name).display().to_string(),
        },
        "Status": match (status, lack) {
            (None, _) => "dead".into(),
            (Some(_), Some(why)) => format!("short: {why}"),
            (Some(status), None) if status.ready < note.size => "filling".into(),
            (Some(_), None) => "ready".into(),
        },
    })
}

/// The heading of a field's column.
fn heading(field: &str) -> String {
    match field {
        "CreatedSince" => "CREATED".into(),
        field => field.to_uppercase(),
    }
}
