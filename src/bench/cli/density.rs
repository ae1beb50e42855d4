//! `kvmlet bench density`.

use super::table::Table;
use super::{Presentation, Watch, absences, conduct, heading, open_report, programs};
use kvmlet_bench::density::Plan;
use kvmlet_command::Outcome;
use kvmlet_command::bench::Density;
use std::time::Duration;

pub(super) fn run(flags: Density) -> Outcome {
    let mut plan = Plan::default();
    if let Some(limit) = flags.limit {
        plan.limit = limit as usize;
    }
    if let Some(parallel) = flags.parallel {
        plan.parallel = parallel as usize;
    }
    if let Some(seconds) = flags.budget {
        plan.budget = Duration::from_secs(seconds.into());
    }
    let report = open_report(flags.contest.report.as_deref())?;
    let programs = programs()?;
    let measure = |watch: Watch<'_>| {
        kvmlet_bench::Density::measure(plan, &programs, &flags.contest.only, watch)
    };
    let page = report.map(|file| (file, kvmlet_bench::report::density as fn(&_) -> _));
    let show = Presentation {
        format: flags.contest.format,
        text,
        page,
    };
    conduct(&show, measure)
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
        "its own",
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
                each.guest_own,
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
