//! `kvmlet bench io`.

use super::table::Table;
use super::{Presentation, Watch, absences, conduct, heading, open_report, programs};
use kvmlet_bench::io::Work;
use kvmlet_command::Outcome;
use kvmlet_command::bench::Io;

pub(super) fn run(flags: Io) -> Outcome {
    let report = open_report(flags.report.as_deref())?;
    let programs = programs()?;
    let rounds = flags.rounds as usize;
    let measure = |watch: Watch<'_>| kvmlet_bench::Io::measure(rounds, &programs, watch);
    let show = Presentation {
        format: flags.format,
        text,
        page: report.map(|file| (file, kvmlet_bench::report::io as fn(&_) -> _)),
    };
    conduct(&show, measure)
}

fn text(result: &kvmlet_bench::Io) -> String {
    let title = format!(
        "{} rounds, host and guest in turn; medians of requests or frames per second",
        result.rounds
    );
    let mut text = heading(&title, &result.host, &result.warnings);
    let head = [
        "",
        "host",
        "guest",
        "ratio",
        "95 %",
        "guest MB/s",
        "per notification",
    ];
    let mut table = Table::new(head);
    for work in &result.work {
        let guest = Work::median(&work.in_guest);
        let percent = |ratio: f64| format!("{:.0}%", ratio * 100.0);
        let (ratio, interval) = match work.to_host {
            Some(one) => (
                percent(one.ratio),
                format!("{:.0}-{}", one.low * 100.0, percent(one.high)),
            ),
            None => Default::default(),
        };
        table.row([
            work.name.into(),
            format!("{:.0}", Work::median(&work.on_host)),
            format!("{guest:.0}"),
            ratio,
            interval,
            format!("{:.0}", guest * work.bytes as f64 / 1e6),
            work.per_notification
                .map_or("-".into(), |count| format!("{count:.1}")),
        ]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    text += &rivals(result);
    for peer in &result.peers {
        text += &absences(peer.name, &peer.presence);
    }
    for failure in &result.failures {
        text += &format!("failed: {failure}\n");
    }
    text
}

/// The same guest in other VMMs.
fn rivals(result: &kvmlet_bench::Io) -> String {
    let mut table = Table::new(["", "kvmlet", "its rival", "", "kvmlet to it", "95 %"]);
    for work in &result.work {
        for rival in &work.rivals {
            // One that has failed is told of below.
            let Some(one) = rival.kvmlet_to_it else {
                continue;
            };
            table.row([
                work.name.into(),
                format!("{:.0}", Work::median(&work.in_guest)),
                format!("{:.0}", Work::median(&rival.per_second)),
                rival.name.into(),
                format!("{:.2}", one.ratio),
                format!("{:.2}-{:.2}", one.low, one.high),
            ]);
        }
    }
    match table.is_empty() {
        true => String::new(),
        false => format!("\n{}", table.text()),
    }
}
