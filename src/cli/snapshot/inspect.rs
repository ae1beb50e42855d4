//! `kvmlet snapshot inspect`.

use super::found::{find, inspected};
use crate::Outcome;
use crate::exit_code::ExitCode;
use crate::format::Template;
use crate::instances::book;
use clap::Args;
use kvmlet_command::plain::pretty_json;
use kvmlet_manager::Snapshots;

/// Print all that is known of snapshots, as JSON.
#[derive(Args)]
pub(super) struct Inspect {
    /// Print by a template of fields, such as {{.Instance.Name}}, one line each.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Their ids, beginnings of ids, or files.
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

impl Inspect {
    pub fn run(self) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let snapshots = Snapshots::of(&book()?)?;
        let (mut all, mut code) = (Vec::new(), 0);
        for reference in &self.snapshots {
            match find(&snapshots, reference) {
                Ok(kept) => all.push(inspected(&kept)),
                Err(failed) => {
                    failed.print();
                    code = ExitCode::NotDone.number();
                }
            }
        }
        let text = match template {
            None => pretty_json(&all)? + "\n",
            Some(template) => template.lines(&all)?,
        };
        kvmlet_command::print(text)?;
        Ok(code)
    }
}
