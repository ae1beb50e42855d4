//! `kvmlet bench startup`.

use super::table::{Table, short};
use super::{Presentation, Watch, absences, conduct, heading, open_report, programs};
use kvmlet_bench::sample::Series;
use kvmlet_bench::{Conditions, Contender, Effort, Plan};
use kvmlet_command::Outcome;
use kvmlet_command::bench::Startup;
use std::time::Duration;

pub(super) fn run(flags: Startup) -> Outcome {
    let mut plan = Plan::default();
    if let Some(rounds) = flags.rounds {
        plan.rounds = rounds as usize;
    }
    if let Some(seconds) = flags.budget {
        plan.budget = Duration::from_secs(seconds.into());
    }
    let conditions = Conditions {
        beside: flags.beside as usize,
        net: flags.net,
        cpu_quota: flags.cpu_quota,
    };
    let report = open_report(flags.contest.report.as_deref())?;
    let programs = programs()?;
    let measure = |watch: Watch<'_>| {
        kvmlet_bench::Startup::measure(plan, &conditions, &programs, &flags.contest.only, watch)
    };
    let page = report.map(|file| (file, kvmlet_bench::report::startup as fn(&_) -> _));
    let show = Presentation {
        format: flags.contest.format,
        text,
        page,
    };
    conduct(&show, measure)
}

fn text(result: &kvmlet_bench::Startup) -> String {
    let title = format!(
        "{} rounds, interleaved; milliseconds from right before the spawn to the line `ready` being read",
        result.rounds
    );
    let mut text = heading(&title, &result.host, &result.warnings);
    text += &format!("\n{}", times(&result.contestants));
    text += &beside(result);
    text += &efforts(&result.contestants);
    text += &notes(&result.contestants);
    if !result.phases.is_empty() {
        text += &format!(
            "\nkvmlet's own start, bare metal (medians):\n{}",
            phases(result)
        );
    }
    text
}

fn times(contestants: &[Contender]) -> String {
    let head = [
        "",
        "n",
        "median",
        "p95",
        "p99",
        "min",
        "max",
        "x process",
        "95 %",
        "gone",
    ];
    let mut table = Table::new(head);
    for one in contestants {
        let Some(ready) = one.figures.ready_ms else {
            continue;
        };
        let (ratio, interval) = match one.figures.to_process {
            Some(ratio) => (
                short(ratio.ratio),
                format!("{}-{}", short(ratio.low), short(ratio.high)),
            ),
            None => Default::default(),
        };
        let gone = one
            .figures
            .gone_ms
            .map_or("-".into(), |gone| short(gone.median));
        let figures = [ready.median, ready.p95, ready.p99, ready.min, ready.max].map(short);
        let row = [one.name.into(), ready.n.to_string()]
            .into_iter()
            .chain(figures);
        table.row(row.chain([ratio, interval, gone]));
    }
    table.text()
}

/// The same with others around.
fn beside(result: &kvmlet_bench::Startup) -> String {
    let head = ["", "n", "median", "p95", "x alone", "95 %", "gone"];
    let mut table = Table::new(head);
    for one in &result.contestants {
        let Some(beside) = &one.beside else { continue };
        let Some(ready) = beside.figures.ready_ms else {
            continue;
        };
        let (ratio, interval) = match beside.to_alone {
            Some(one) => (
                short(one.ratio),
                format!("{}-{}", short(one.low), short(one.high)),
            ),
            None => Default::default(),
        };
        let gone = beside
            .figures
            .gone_ms
            .map_or("-".into(), |gone| short(gone.median));
        let figures = [ready.median, ready.p95].map(short);
        let row = [one.name.into(), ready.n.to_string()]
            .into_iter()
            .chain(figures);
        table.row(row.chain([ratio, interval, gone]));
    }
    match table.is_empty() {
        true => String::new(),
        false => format!(
            "\nBeside {} idle VMs of kvmlet's (half of the rounds above were before them, half after):\n{}",
            result.beside,
            table.text()
        ),
    }
}

/// What starts took of the VMMs.
fn efforts(contestants: &[Contender]) -> String {
    let head = [
        "",
        "n",
        "exits",
        "VMM CPU ms",
        "guest CPU ms",
        "pages",
        "its own",
    ];
    let (mut table, mut reasons) = (Table::new(head), String::new());
    for one in contestants {
        match &one.effort {
            None => {}
            Some(Effort::Measured {
                n,
                exits,
                guest_cpu_ms,
                vmm_cpu_ms,
                guest_pages,
                guest_own_pages,
            }) => {
                let cpu = [*vmm_cpu_ms, *guest_cpu_ms].map(short);
                table.row(
                    [one.name.into(), n.to_string(), format!("{exits:.0}")]
                        .into_iter()
                        .chain(cpu)
                        .chain([guest_pages, guest_own_pages].map(|pages| format!("{pages:.0}"))),
                );
            }
            Some(Effort::Unavailable { reason }) => {
                reasons += &format!(
                    "exits and CPU time of {} are not available: {reason}\n",
                    one.name
                );
            }
        }
    }
    if table.is_empty() {
        return reasons;
    }
    format!(
        "\nFrom spawn to ready: exits to the VMM, its CPU time outside of KVM_RUN, CPU time in KVM_RUN, and pages of guest RAM that are mapped then (its own: in no file)\n{}{reasons}",
        table.text()
    )
}

/// Who did not take part, and what failed.
fn notes(contestants: &[Contender]) -> String {
    let mut text = String::new();
    for one in contestants {
        text += &absences(one.name, &one.presence);
        let of_both = one
            .beside
            .as_ref()
            .map_or(0, |beside| beside.samples.samples().len());
        let all = one.samples.samples().len() + of_both;
        let beside = one.beside.iter().map(|beside| &beside.samples);
        let failures = [&one.samples].into_iter().chain(beside);
        for (message, count) in failures.flat_map(Series::failures_by_message) {
            text += &format!(
                "failed: {} ({count} of {all} starts): {message}\n",
                one.name
            );
        }
    }
    text
}

fn phases(result: &kvmlet_bench::Startup) -> String {
    let longest = result
        .phases
        .iter()
        .map(|segment| segment.summary.median)
        .fold(0.0, f64::max);
    let mut text = String::new();
    for segment in &result.phases {
        let median = segment.summary.median;
        let bar = "#".repeat((median / longest * 40.0).round() as usize);
        text += format!("{:<16} {median:>7.3} ms  {bar}\n", segment.name).as_str();
    }
    text
}
