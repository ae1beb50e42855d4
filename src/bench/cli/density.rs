//! `kvmlet bench density`.

use super::table::Table;
use super::{
    Format, Presentation, Watch, absences, conduct, heading, open_report, programs, whole,
};
use clap::Args;
use kvmlet_bench::density::Plan;
use kvmlet_command::Outcome;
use std::path::PathBuf;
use std::time::Duration;

/// Run more and more instances at once, and tell what each keeps of memory and how fast they start.
///
/// The same service, which stays this time, as a process, in containers and in microVMs: 1, 2, 4, 8 ... instances,
/// until there are --limit, or memory or time is used up.
#[derive(Args)]
pub(super) struct Density {
    /// Most instances at once [default: 64].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(1..=100_000))]
    limit: Option<u32>,
    /// How many start at the same time [default: the number of CPUs].
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = whole(1..=1024))]
    parallel: Option<u32>,
    /// Seconds for each contestant [default: 60].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = whole(1..=86_400))]
    budget: Option<u32>,
    /// Start only these, beside the bare process.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write a page with pictures as well, for a browser; `-` prints it instead of the result.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Density {
    pub fn run(self) -> Outcome {
        let mut plan = Plan::default();
        if let Some(limit) = self.limit {
            plan.limit = limit as usize;
        }
        if let Some(parallel) = self.parallel {
            plan.parallel = parallel as usize;
        }
        if let Some(seconds) = self.budget {
            plan.budget = Duration::from_secs(seconds.into());
        }
        let report = open_report(self.report.as_deref())?;
        let programs = programs()?;
        let measure =
            |watch: Watch<'_>| kvmlet_bench::Density::measure(plan, &programs, &self.only, watch);
        let page = report.map(|file| (file, kvmlet_bench::report::density as fn(&_) -> _));
        let show = Presentation {
            format: self.format,
            text,
            page,
        };
        conduct(&show, measure)
    }
}

fn text(result: &kvmlet_bench::Density) -> String {
    let title = format!(
        "{} starts at a time; memory as MiB for each instance (PSS)",
        result.parallel
    );
    let mut text = heading(&title, &result.host, &result.warnings);
    let head = [
        "",
        "instances",
        "starts/s",
        "guest RAM",
        "private",
        "page cache",
        "sum",
        "from host",
    ];
    let mut table = Table::new(head);
    for one in &result.contestants {
        for level in &one.levels {
            let each = &level.each;
            let sizes = [
                each.guest_ram,
                each.private,
                each.page_cache,
                each.sum(),
                level.host_each,
            ];
            let row = [
                one.name.into(),
                level.instances.to_string(),
                format!("{:.1}", level.starts_per_second),
            ];
            table.row(row.into_iter().chain(sizes.map(|mib| format!("{mib:.2}"))));
        }
    }
    text += &format!("\n{}", table.text());
    for one in &result.contestants {
        text += &absences(one.name, &one.presence);
        if !one.stopped.is_empty() {
            text += &format!("{} stopped at: {}\n", one.name, one.stopped);
        }
    }
    text
}
