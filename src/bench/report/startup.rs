//! The page of a start-up benchmark.

use super::chart::{self, class, short};
use super::{Page, commands, escape, facts, items, picture, presence};
use crate::effort::Effort;
use crate::startup::{Contender, Startup};
use std::fmt::Write;

/// The page, complete: style and pictures are in it.
pub fn startup(result: &Startup) -> String {
    let all: Vec<&Contender> = result.contestants.iter().collect();
    let lead = format!(
        "One service as a process, in containers and in microVMs, on one machine and in one run. kvmlet {}, rounds: {}.",
        result.kvmlet, result.rounds
    );
    let mut page = Page::new("What a start costs", &lead, &result.warnings);
    page.section("Time to ready", &boxes(&all));
    page.section("How starts are distributed", &curves(&all));
    page.section("Figures", &figures(&all));
    page.section("What a start takes of the VMM", &efforts(&all));
    page.section("Not measured, or failed", &missing(&all));
    page.section("Where kvmlet's own start goes", &phases(result));
    page.section("How it was measured", &method(result, &all));
    page.end()
}

fn boxes(all: &[&Contender]) -> String {
    let text = "Milliseconds from right before the spawn, logarithmic. Box: quartiles and median; line: from the smallest \
        to the 95 % quantile; dots: every start. Behind ×: the median in terms of the bare process's.";
    picture(text, chart::boxes(all))
}

fn curves(all: &[&Contender]) -> String {
    picture(
        "Share of starts that were ready by then.",
        chart::curves(all),
    )
}

fn figures(all: &[&Contender]) -> String {
    let mut rows = String::new();
    for one in all {
        let Some(ready) = one.figures.ready_ms else {
            continue;
        };
        let _ = write!(
            rows,
            "<tr class=\"{}\"><td><span class=\"key\"></span>{}</td><td>{}</td>",
            class(one.kind),
            escape(one.name),
            ready.n
        );
        for value in [ready.median, ready.p95, ready.p99, ready.min, ready.max] {
            let _ = write!(rows, "<td>{}</td>", short(value));
        }
        let ratio = one.figures.to_process.map_or("–".into(), |ratio| {
            format!(
                "{} <span class=\"quiet\">{} – {}</span>",
                short(ratio.ratio),
                short(ratio.low),
                short(ratio.high)
            )
        });
        let gone = one
            .figures
            .gone_ms
            .map_or("–".into(), |gone| short(gone.median));
        let _ = write!(
            rows,
            "<td>{ratio}</td><td>{gone}</td><td>{}</td></tr>",
            one.figures.failed
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<p class=\"quiet\">Milliseconds. The ratio's interval holds 95 % of 2000 bootstrap resamples; a handful of starts makes it too narrow. With fewer than 100 \
         starts p99 is little more than the largest, with fewer than 20 so is p95.</p><div class=\"scroll\"><table><tr>\
         <th></th><th>n</th><th>median</th><th>p95</th><th>p99</th><th>min</th><th>max</th><th>× process</th><th>gone</th>\
         <th>failed</th></tr>{rows}</table></div>"
    )
}

fn efforts(all: &[&Contender]) -> String {
    let mut rows = String::new();
    for one in all {
        let Some(effort) = &one.effort else { continue };
        let cells = match effort {
            Effort::Measured {
                n,
                exits,
                guest_cpu_ms,
                vmm_cpu_ms,
                guest_pages,
                guest_own_pages,
            } => format!(
                "<td>{n}</td><td>{exits:.0}</td><td>{}</td><td>{}</td><td>{guest_pages:.0}</td><td>{guest_own_pages:.0}</td>",
                short(*vmm_cpu_ms),
                short(*guest_cpu_ms)
            ),
            Effort::Unavailable { reason } => {
                format!("<td colspan=\"6\">not available: {}</td>", escape(reason))
            }
        };
        let (class, name) = (class(one.kind), escape(one.name));
        let _ = write!(
            rows,
            "<tr class=\"{class}\"><td><span class=\"key\"></span>{name}</td>{cells}</tr>"
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<p class=\"quiet\">From spawn to ready, started apart from all rounds. Exits: returns of KVM_RUN to user space. CPU \
         time in milliseconds, of all threads, counted by the kernel’s tracepoints: the VMM’s is all outside of KVM_RUN, its \
         exec and its system calls included; the guest’s is all in KVM_RUN, which on a host that interprets guest kernels is \
         mostly KVM’s interpreter. Pages are those of guest RAM that are mapped once it is ready, and of these, those that \
         are in no file.</p><div class=\"scroll\"><table><tr><th></th><th>n</th><th>exits</th><th>VMM CPU</th>\
         <th>guest CPU</th><th>pages</th><th>its own</th></tr>{rows}</table></div>"
    )
}

fn missing(all: &[&Contender]) -> String {
    let mut told = Vec::new();
    for one in all {
        told.extend(presence(one.name, &one.presence));
        let (name, starts) = (escape(one.name), one.samples.samples().len());
        for (message, count) in one.samples.failures_by_message() {
            let message = escape(message);
            told.push(format!(
                "<b>{name}</b>: {count} of {starts} starts failed: {message}"
            ));
        }
    }
    items(&told)
}

fn phases(result: &Startup) -> String {
    let n = result.phases.first().map_or(0, |segment| segment.summary.n);
    let text = format!(
        "A bare-metal guest, started apart from all rounds; medians of {n} starts of what kvmlet says of itself. “exec, \
         arguments” holds all that runs before the library does; “end” is from ready to the process being gone."
    );
    picture(&text, chart::phases(&result.phases))
}

fn method(result: &Startup, all: &[&Contender]) -> String {
    let command = |one: &&Contender| commands(one.name, one.about, &one.presence, &one.command);
    format!(
        "<p>{}</p><p>{}</p>{}<details open><summary>Versions and exact commands</summary>{}</details>",
        escape(result.clock),
        escape(result.service),
        facts(&result.host),
        all.iter().map(command).collect::<String>()
    )
}
