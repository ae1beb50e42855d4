//! A result as one page that a browser shows without a network.

mod chart;
mod scale;

use super::contestant::Presence;
use super::effort::Effort;
use super::startup::{Contender, Startup};
use chart::{class, short};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// The page of a start-up benchmark, complete: style and pictures are in it.
pub fn startup(result: &Startup) -> String {
    let all: Vec<&Contender> = result.contestants.iter().collect();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>kvmlet: what a start costs</title><style>{STYLE}</style></head><body><main>\
         <h1>What a start costs</h1>\
         <p class=\"quiet\">One service as a process, in containers and in microVMs, on one machine and in one run. \
         kvmlet {}, {} rounds.</p>",
        escape(result.kvmlet),
        result.rounds
    );
    for warning in &result.warnings {
        let _ = write!(
            page,
            "<p class=\"warning\" role=\"note\">{}</p>",
            escape(warning)
        );
    }
    section(&mut page, "Time to ready", &boxes(&all));
    section(&mut page, "How starts are distributed", &curves(&all));
    section(&mut page, "Figures", &figures(&all));
    section(&mut page, "What a start takes of the VMM", &efforts(&all));
    section(&mut page, "Not measured, or failed", &missing(&all));
    section(&mut page, "Where kvmlet's own start goes", &phases(result));
    section(&mut page, "How it was measured", &method(result, &all));
    page + "</main></body></html>\n"
}

/// What is empty is left away.
fn section(page: &mut String, title: &str, body: &str) {
    if !body.is_empty() {
        let _ = write!(page, "<section><h2>{title}</h2>{body}</section>");
    }
}

fn boxes(all: &[&Contender]) -> String {
    let chart = chart::boxes(all);
    if chart.is_empty() {
        return chart;
    }
    "<p class=\"quiet\">Milliseconds from right before the spawn, logarithmic. Box: quartiles and median; line: from the \
     smallest to the 95 % quantile; dots: every start. Behind ×: the median in terms of the bare process's.</p>"
        .to_owned()
        + &chart
}

fn curves(all: &[&Contender]) -> String {
    let chart = chart::curves(all);
    if chart.is_empty() {
        return chart;
    }
    "<p class=\"quiet\">Share of starts that were ready by then.</p>".to_owned() + &chart
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
            } => format!(
                "<td>{n}</td><td>{exits:.0}</td><td>{}</td><td>{}</td>",
                short(*vmm_cpu_ms),
                short(*guest_cpu_ms)
            ),
            Effort::Unavailable { reason } => {
                format!("<td colspan=\"4\">not available: {}</td>", escape(reason))
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
         mostly KVM’s interpreter.</p><div class=\"scroll\"><table><tr><th></th><th>n</th><th>exits</th><th>VMM CPU</th>\
         <th>guest CPU</th></tr>{rows}</table></div>"
    )
}

fn missing(all: &[&Contender]) -> String {
    let mut items = String::new();
    for one in all {
        let name = escape(one.name);
        let _ = match &one.presence {
            Presence::Present { .. } => Ok(()),
            Presence::Absent { install } => {
                write!(
                    items,
                    "<li><b>{name}</b> is not installed; to install it: <code>{}</code></li>",
                    escape(install)
                )
            }
            Presence::Unusable { message } => {
                write!(
                    items,
                    "<li><b>{name}</b> cannot be used: {}</li>",
                    escape(message)
                )
            }
        };
        for (message, count) in one.samples.failures_by_message() {
            let starts = one.samples.samples().len();
            let _ = write!(
                items,
                "<li><b>{name}</b>: {count} of {starts} starts failed: {}</li>",
                escape(message)
            );
        }
    }
    if items.is_empty() {
        items
    } else {
        format!("<ul>{items}</ul>")
    }
}

fn phases(result: &Startup) -> String {
    let bar = chart::phases(&result.phases);
    if bar.is_empty() {
        return bar;
    }
    let n = result.phases.first().map_or(0, |segment| segment.summary.n);
    format!(
        "<p class=\"quiet\">A bare-metal guest, started apart from all rounds; medians of {n} starts of what kvmlet says of \
         itself. “exec, arguments” holds all that runs before the library does; “end” is from ready to the process being \
         gone.</p>{bar}"
    )
}

fn method(result: &Startup, all: &[&Contender]) -> String {
    let host = &result.host;
    let mut text = format!(
        "<p>{}</p><p>{}</p><dl><dt>kernel</dt><dd>{}</dd><dt>processor</dt><dd>{}, {} CPUs</dd><dt>memory</dt><dd>{:.1} \
         GiB</dd><dt>KVM</dt><dd>{}</dd><dt>cgroups</dt><dd>version {}</dd><dt>load before</dt><dd>{:.2}</dd></dl>\
         <details open><summary>Versions and exact commands</summary>",
        escape(result.clock),
        escape(result.service),
        escape(&host.kernel),
        escape(&host.cpu),
        host.cpus,
        host.memory_bytes as f64 / f64::from(1 << 30),
        host.kvm,
        host.cgroup_version,
        host.load
    );
    for one in all {
        if let Presence::Present { version } = &one.presence {
            let _ = write!(
                text,
                "<p><b>{}</b> <span class=\"quiet\">{}; {}</span></p><pre>{}</pre>",
                escape(one.name),
                escape(one.about),
                escape(version),
                escape(&one.command.join(" "))
            );
        }
    }
    text + "</details>"
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // What consoles write besides text has no place in a page.
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
