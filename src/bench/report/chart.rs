//! Pictures of series, as SVG whose colours come from the page's style.

use super::escape;
use super::scale::{LogScale, label};
use crate::contestant::Kind;
use crate::phases::Segment;
use crate::startup::Contender;
use crate::statistics::Summary;
use std::fmt::Write;

pub(super) const WIDTH: f64 = 1000.0;
pub(super) const LEFT: f64 = 170.0;
pub(super) const RIGHT: f64 = 850.0;
const ROW: f64 = 46.0;
const CURVES: f64 = 300.0;

/// The class of a contestant's colour.
pub(super) fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "process",
        Kind::Container => "container",
        Kind::BareMetal => "bare-metal",
        Kind::MicroVm => "micro-vm",
    }
}

/// A box plot: quartiles, the median, whiskers to the smallest and the 95 % quantile, and every start as a dot.
pub(super) fn boxes(contestants: &[&Contender]) -> String {
    let shown: Vec<(&Contender, Summary, Vec<f64>)> = contestants
        .iter()
        .filter_map(|one| Some((*one, one.figures.ready_ms?, one.samples.ready_ms())))
        .collect();
    let values = shown
        .iter()
        .flat_map(|(_, _, values)| values.iter().copied());
    let Some(scale) = LogScale::over(values, LEFT, RIGHT) else {
        return String::new();
    };
    let bottom = ROW * shown.len() as f64 + 6.0;
    let mut svg = open(
        bottom + 26.0,
        "Time to ready, for each contestant a box plot",
    );
    grid(&mut svg, &scale, bottom, label);
    for (number, (one, summary, values)) in shown.iter().enumerate() {
        let middle = ROW * (number as f64 + 0.5) + 4.0;
        plot(&mut svg, one, summary, values, &scale, middle);
    }
    svg + "</svg>"
}

fn plot(
    svg: &mut String,
    one: &Contender,
    summary: &Summary,
    values: &[f64],
    scale: &LogScale,
    y: f64,
) {
    let [min, q1, median, q3, p95] = [
        summary.min,
        summary.lower_quartile,
        summary.median,
        summary.upper_quartile,
        summary.p95,
    ]
    .map(|value| scale.at(value));
    let name = escape(one.name);
    let ratio = one
        .figures
        .to_process
        .map(|ratio| format!(" · ×{}", short(ratio.ratio)))
        .unwrap_or_default();
    let _ = write!(
        svg,
        "<g class=\"{}\"><title>{name}: median {median_ms} ms, quartiles {} to {} ms, 95 % below {} ms, n = {}</title>\
         <text x=\"{x}\" y=\"{ty:.1}\" text-anchor=\"end\">{name}</text>",
        class(one.kind),
        short(summary.lower_quartile),
        short(summary.upper_quartile),
        short(summary.p95),
        summary.n,
        median_ms = short(summary.median),
        x = LEFT - 12.0,
        ty = y + 4.0,
    );
    for (index, value) in values.iter().enumerate() {
        // A fixed spread, so that dots at one place do not hide each other.
        let dy = (index * 7 % 11) as f64 - 5.0;
        let _ = write!(
            svg,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>",
            scale.at(*value),
            y + dy * 2.6
        );
    }
    let _ = write!(
        svg,
        "<line class=\"whisker\" x1=\"{min:.1}\" x2=\"{q1:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <line class=\"whisker\" x1=\"{q3:.1}\" x2=\"{p95:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <rect class=\"box\" x=\"{q1:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>\
         <line class=\"median\" x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{top:.1}\" y2=\"{end:.1}\"/>\
         <text x=\"{x}\" y=\"{ty:.1}\">{}<tspan class=\"quiet\">{ratio}</tspan></text></g>",
        time(summary.median),
        top = y - 9.0,
        end = y + 9.0,
        width = (q3 - q1).max(1.0),
        x = RIGHT + 12.0,
        ty = y + 4.0,
    );
}

/// Cumulative curves: which share of starts was ready by then.
pub(super) fn curves(contestants: &[&Contender]) -> String {
    let shown: Vec<(&Contender, Vec<f64>)> = contestants
        .iter()
        .map(|one| {
            let mut values = one.samples.ready_ms();
            values.sort_by(f64::total_cmp);
            (*one, values)
        })
        .filter(|(_, values)| !values.is_empty())
        .collect();
    let values = shown.iter().flat_map(|(_, values)| values.iter().copied());
    let Some(scale) = LogScale::over(values, LEFT, WIDTH - 30.0) else {
        return String::new();
    };
    let mut svg = open(CURVES + 34.0, "Share of starts that were ready, over time");
    grid(&mut svg, &scale, CURVES, label);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg += &level(height(share), &format!("{} %", share * 100.0));
    }
    let drawn: Vec<Named> = shown.iter().map(|(one, _)| (one.name, one.kind)).collect();
    for (number, (_, values)) in shown.iter().enumerate() {
        svg += &curve(&drawn, number, &steps(values, &scale));
    }
    svg + "</svg>" + &legend(&drawn)
}

/// A line of the grid across a chart of curves.
pub(super) fn level(y: f64, label: &str) -> String {
    format!(
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"quiet\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        WIDTH - 30.0,
        LEFT - 12.0,
        y + 4.0
    )
}

/// Who is drawn.
pub(super) type Named<'a> = (&'a str, Kind);

/// The curve of one of those that are drawn.
pub(super) fn curve(drawn: &[Named<'_>], number: usize, path: &str) -> String {
    let (name, kind) = drawn[number];
    format!(
        "<g class=\"{}\"><path class=\"curve {}\" d=\"{path}\"><title>{}</title></path></g>",
        class(kind),
        dash(drawn, number),
        escape(name)
    )
}

/// Which curve is whose.
pub(super) fn legend(drawn: &[Named<'_>]) -> String {
    let mut html = String::from("<div class=\"legend\">");
    for (number, (name, kind)) in drawn.iter().enumerate() {
        let _ = write!(
            html,
            "<span class=\"{}\"><svg viewBox=\"0 0 34 10\"><path class=\"curve {}\" d=\"M0 5H34\"/></svg>{}</span>",
            class(*kind),
            dash(drawn, number),
            escape(name)
        );
    }
    html + "</div>"
}

/// Contestants of one kind share a colour and differ in their dashes.
fn dash(drawn: &[Named<'_>], number: usize) -> String {
    let kind = drawn[number].1;
    let before = drawn[..number].iter().filter(|(_, other)| *other == kind);
    format!("d{}", before.count() % 6)
}

fn height(share: f64) -> f64 {
    CURVES - 6.0 - share * (CURVES - 20.0)
}

/// A step at each sorted value.
fn steps(values: &[f64], scale: &LogScale) -> String {
    let mut path = String::new();
    for (number, value) in values.iter().enumerate() {
        let from = height(number as f64 / values.len() as f64);
        let to = height((number + 1) as f64 / values.len() as f64);
        let command = if number == 0 { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{command}{x:.1} {from:.1}V{to:.1}",
            x = scale.at(*value)
        );
    }
    path
}

/// One bar of the medians of all phases, and their names below it.
pub(super) fn phases(segments: &[Segment]) -> String {
    let total: f64 = segments.iter().map(|segment| segment.summary.median).sum();
    if total <= 0.0 {
        return String::new();
    }
    let mut svg = open(56.0, "The phases of one start, one after the other");
    let mut legend = String::from("<div class=\"phases\">");
    let mut x = 0.0;
    for (number, segment) in segments.iter().enumerate() {
        let ms = segment.summary.median;
        let (width, colour, name) = (ms / total * WIDTH, hue(number), escape(&segment.name));
        let _ = write!(
            svg,
            "<rect class=\"segment\" x=\"{x:.1}\" y=\"4\" width=\"{width:.1}\" height=\"44\" rx=\"3\" fill=\"{colour}\">\
             <title>{name}: {ms:.3} ms</title></rect>"
        );
        let _ = write!(
            legend,
            "<div><span><i style=\"background:{colour}\"></i>{name}</span><span>{ms:.3} ms</span></div>"
        );
        x += width;
    }
    svg + "</svg>" + &legend + "</div>"
}

/// Neighbours differ in hue and in lightness; the same in light and dark.
fn hue(number: usize) -> String {
    let lightness = if number.is_multiple_of(2) { 46 } else { 62 };
    format!("hsl({} 55% {lightness}%)", 205 + number * 47 % 360)
}

pub(super) fn open(height: f64, what: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{what}\">")
}

/// Lines across rows, each with what it stands for below them.
pub(super) fn grid(svg: &mut String, scale: &LogScale, bottom: f64, label: impl Fn(f64) -> String) {
    for tick in scale.ticks() {
        let x = scale.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>\
             <text class=\"quiet\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            label(tick)
        );
    }
}

/// Milliseconds with three digits that say something.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A time with its unit.
fn time(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{} ms", short(ms))
    } else {
        format!("{} s", short(ms / 1000.0))
    }
}
