//! The page of a benchmark of disks and interfaces.

use super::chart::{LEFT, RIGHT, grid, open, short};
use super::scale::{LogScale, trimmed};
use super::{Page, escape, facts, items, picture, presence};
use crate::io::{Io, Work};
use crate::statistics::{Ratio, Summary};
use std::fmt::Write;

const ROW: f64 = 46.0;
const HOST: &str = "host";
const OWN: &str = "kvmlet";

/// The page, complete: style and pictures are in it.
pub fn io(result: &Io) -> String {
    let lead = format!(
        "What a disk and an interface of a microVM do, against the same work on the host and in other VMMs, on one machine and \
         in one run. kvmlet {}, rounds: {}.",
        result.kvmlet, result.rounds
    );
    let mut page = Page::new("What a disk and an interface do", &lead, &result.warnings);
    let is_frames = |work: &&Work| {
        ["send", "receive"]
            .iter()
            .any(|word| work.name.starts_with(word))
    };
    let (frames, disk): (Vec<&Work>, Vec<&Work>) = result.work.iter().partition(is_frames);
    page.section("A disk", &marks(&disk));
    page.section("An interface", &marks(&frames));
    page.section("Figures", &figures(&result.work));
    page.section("Not measured, or failed", &missing(result));
    let method = format!("<p>{}</p>{}", escape(result.method), facts(&result.host));
    page.section("How it was measured", &method);
    page.end()
}

/// Who did a kind of work, and how often in each round.
fn sides(work: &Work) -> Vec<(&str, &[f64])> {
    let mut sides: Vec<(&str, &[f64])> = vec![(HOST, &work.on_host), (OWN, &work.in_guest)];
    let rivals = work.rivals.iter();
    sides.extend(rivals.map(|rival| (rival.name, &rival.per_second[..])));
    sides.retain(|(_, rates)| !rates.is_empty());
    sides
}

/// The class of a side's colour, and whether its mark is hollow.
fn look(name: &str) -> (&'static str, bool) {
    match name {
        HOST => ("process", false),
        OWN => ("bare-metal", false),
        _ if name.starts_with("firecracker") => ("container", name.ends_with("-async")),
        _ => ("micro-vm", false),
    }
}

/// Each side's median as a mark, on a line from its slowest round to its fastest, for each kind of work.
fn marks(all: &[&Work]) -> String {
    let shown: Vec<(&Work, f64)> = all
        .iter()
        .map(|work| (*work, Work::median(&work.on_host)))
        .filter(|(_, host)| *host > 0.0)
        .collect();
    let shares = |&(work, host): &(&Work, f64)| -> Vec<f64> {
        let of = |(_, rates): (_, &[f64])| {
            rates
                .iter()
                .map(move |rate| rate / host)
                .collect::<Vec<_>>()
        };
        sides(work).into_iter().flat_map(of).collect()
    };
    let values: Vec<f64> = shown.iter().flat_map(shares).collect();
    let Some(scale) = LogScale::over(values.iter().copied(), LEFT, RIGHT) else {
        return String::new();
    };
    let bottom = ROW * shown.len() as f64 + 6.0;
    let mut svg = open(
        bottom + 26.0,
        "For each kind of work what each side did, in terms of the host",
    );
    let percent = |tick: f64| format!("{} %", trimmed(tick * 100.0));
    grid(&mut svg, &scale, bottom, percent);
    let mut names: Vec<&str> = Vec::new();
    for (number, (work, host)) in shown.iter().enumerate() {
        let y = ROW * (number as f64 + 0.5) + 4.0;
        row(&mut svg, work, *host, &scale, y);
        let new = sides(work).into_iter().map(|(name, _)| name);
        names.extend(new.filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    let text = "Medians in terms of the host’s own, which is 100 %, logarithmic; lines are from the slowest round to the fastest. \
        Further to the right is better. The figure is the median of kvmlet’s guest, per second.";
    picture(text, svg + "</svg>" + &legend(&names))
}

fn row(svg: &mut String, work: &Work, host: f64, scale: &LogScale, y: f64) {
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{ty:.1}\" text-anchor=\"end\">{}</text><text x=\"{}\" y=\"{ty:.1}\">{}</text>",
        LEFT - 12.0,
        escape(work.name),
        RIGHT + 12.0,
        grouped(Work::median(&work.in_guest)),
        ty = y + 4.0,
    );
    let sides = sides(work);
    for (number, (name, rates)) in sides.iter().enumerate() {
        let Some(summary) = Summary::of(rates) else {
            continue;
        };
        // One above the other, so that no mark hides another.
        let y = y + (number as f64 - (sides.len() - 1) as f64 / 2.0) * 8.0;
        let [min, median, max] =
            [summary.min, summary.median, summary.max].map(|rate| scale.at(rate / host));
        let (class, hollow) = look(name);
        let shape = if hollow { "box" } else { "part" };
        let _ = write!(
            svg,
            "<g class=\"{class}\"><title>{}, {}: {} per second, from {} to {}</title>\
             <line class=\"whisker\" x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <rect class=\"{shape}\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"6\" rx=\"1\"/></g>",
            escape(work.name),
            escape(name),
            grouped(summary.median),
            grouped(summary.min),
            grouped(summary.max),
            median - 4.0,
            y - 3.0,
        );
    }
}

fn legend(names: &[&str]) -> String {
    let mut html = String::from("<div class=\"legend\">");
    for name in names {
        let (class, hollow) = look(name);
        let shape = if hollow { "box" } else { "part" };
        let _ = write!(
            html,
            "<span class=\"{class}\"><svg viewBox=\"0 0 34 10\"><rect class=\"{shape}\" x=\"13\" y=\"2\" width=\"8\" height=\"6\" rx=\"1\"/></svg>{}</span>",
            escape(name)
        );
    }
    html + "</div>"
}

fn figures(all: &[Work]) -> String {
    let mut rows = String::new();
    for work in all {
        for (name, rates) in sides(work) {
            let ratio = match name {
                HOST => None,
                OWN => work.to_host,
                _ => (work.rivals.iter())
                    .find(|rival| rival.name == name)
                    .and_then(|rival| rival.kvmlet_to_it),
            };
            let _ = write!(
                rows,
                "<tr class=\"{}\"><td>{}</td><td><span class=\"key\"></span>{}</td><td>{}</td>{}</tr>",
                look(name).0,
                escape(work.name),
                escape(name),
                grouped(Work::median(rates)),
                cells(ratio)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<p class=\"quiet\">Medians of requests or frames per second. The ratio is kvmlet’s: on its own line to the host, on others’ to \
         them, with the interval that holds it in 95 of 100 such runs.</p><div class=\"scroll\"><table><tr><th></th><th></th><th>per second</th>\
         <th>ratio</th><th>95 %</th></tr>{rows}</table></div>"
    )
}

fn cells(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "<td></td><td></td>".into(),
        Some(ratio) => format!(
            "<td>{}</td><td>{} to {}</td>",
            short(ratio.ratio),
            short(ratio.low),
            short(ratio.high)
        ),
    }
}

fn missing(result: &Io) -> String {
    let absent = result.peers.iter();
    let mut told: Vec<String> = absent
        .filter_map(|peer| presence(peer.name, &peer.presence))
        .collect();
    told.extend(result.failures.iter().map(|failure| escape(failure)));
    items(&told)
}

/// A whole number, with its thousands apart.
fn grouped(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (number, digit) in digits.chars().enumerate() {
        if number > 0 && (digits.len() - number).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contestant::Presence;
    use crate::facts::HostFacts;
    use crate::io::{Peer, Rival};

    fn work(name: &'static str, rival: &'static str) -> Work {
        let mut work = Work {
            on_host: vec![100.0, 110.0, 90.0],
            in_guest: vec![80.0, 90.0, 70.0],
            rivals: vec![Rival {
                name: rival,
                per_second: vec![40.0, 45.0, 35.0],
                kvmlet_to_it: None,
            }],
            ..Work::new(name, 4096)
        };
        work.compare();
        work
    }

    fn result() -> Io {
        let mut peers = Peer::all();
        peers[1].presence = Presence::Absent {
            install: "a <release>".into(),
        };
        Io {
            benchmark: "io",
            kvmlet: "0.0",
            method: "A method.",
            rounds: 3,
            host: HostFacts::read(),
            warnings: vec!["Beware.".into()],
            peers,
            work: vec![
                work("read4k depth=1", "firecracker-async"),
                work("send 60 bytes", "firecracker"),
            ],
            failures: vec!["net: <none>".into()],
        }
    }

    #[test]
    fn a_page_has_all_sides_and_what_is_missing() {
        let page = io(&result());
        for text in [
            "Beware.",
            "read4k depth=1, kvmlet: 80 per second, from 70 to 90",
            "send 60 bytes, firecracker: 40 per second",
            "<td>2.00</td>",
            "a &lt;release&gt;",
            "net: &lt;none&gt;",
        ] {
            assert!(page.contains(text), "{text}");
        }
        // A picture for the disk, one for the interface, and the legends'.
        assert_eq!(page.matches("role=\"img\"").count(), 2);
    }

    #[test]
    fn nothing_measured_is_no_picture() {
        let mut empty = result();
        empty.work.clear();
        let page = io(&empty);
        assert!(!page.contains("<svg") && !page.contains("<table"));
    }

    #[test]
    fn thousands_are_apart() {
        let shown = [7.0, 999.6, 1234567.0].map(grouped);
        assert_eq!(shown, ["7", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }
}
