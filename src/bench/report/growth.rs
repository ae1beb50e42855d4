//! Pictures of what instances keep, and of how that and their starts change while they become more.

use super::chart::{LEFT, Named, RIGHT, WIDTH, class, curve, legend, level, open, short};
use super::escape;
use super::scale::{LogScale, trimmed};
use crate::density::{Crowd, Level};
use std::fmt::Write;

const ROW: f64 = 40.0;
const CURVES: f64 = 260.0;

/// What one instance keeps when there are as many as there were in the end: a bar of its parts for each contestant.
pub(super) fn bars(crowds: &[&Crowd]) -> String {
    let last = |crowd: &&Crowd| Some((crowd.name, crowd.kind, *crowd.levels.last()?));
    let shown: Vec<_> = crowds.iter().filter_map(last).collect();
    let most = (shown.iter()).map(|(_, _, level)| level.each.sum());
    let most = most.fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let mut svg = open(
        ROW * shown.len() as f64 + 6.0,
        "Memory of each instance, in its parts",
    );
    for (number, (name, kind, level)) in shown.iter().enumerate() {
        let middle = ROW * (number as f64 + 0.5) + 3.0;
        let _ = write!(
            svg,
            "<g class=\"{}\"><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            class(*kind),
            LEFT - 12.0,
            middle + 4.0,
            escape(name)
        );
        let mut x = LEFT;
        for (part, mib, opacity) in parts(level) {
            let width = mib / most * (RIGHT - LEFT);
            let _ = write!(
                svg,
                "<rect class=\"part\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"20\" fill-opacity=\"{opacity}\">\
                 <title>{part}: {mib:.2} MiB</title></rect>",
                middle - 10.0
            );
            x += width;
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{} MiB<tspan class=\"quiet\"> · {}</tspan></text></g>",
            RIGHT + 12.0,
            middle + 4.0,
            short(level.each.sum()),
            level.instances
        );
    }
    svg + "</svg><div class=\"legend bare-metal\">" + &shades() + "</div>"
}

/// The parts of what an instance keeps, with the shades in which they are drawn.
fn parts(level: &Level) -> [(&'static str, f64, &'static str); 3] {
    let each = &level.each;
    [
        ("guest RAM", each.guest_ram, ".9"),
        ("private", each.private, ".5"),
        ("page cache", each.page_cache, ".2"),
    ]
}

fn shades() -> String {
    let nothing = Level::default();
    let shade = |(part, _, opacity)| {
        format!(
            "<span><svg viewBox=\"0 0 34 10\"><rect class=\"part\" width=\"34\" height=\"10\" fill-opacity=\"{opacity}\"/>\
             </svg>{part}</span>"
        )
    };
    parts(&nothing).map(shade).concat()
}

/// A value of each level over the number of instances, both logarithmic: a curve for each contestant.
pub(super) fn lines(
    crowds: &[&Crowd],
    what: &str,
    unit: &str,
    value: impl Fn(&Level) -> f64,
) -> String {
    // One level makes no curve, and what is not above zero has no place.
    let points = |crowd: &&Crowd| -> Vec<(f64, f64)> {
        let levels = crowd.levels.iter();
        let all = levels.map(|level| (level.instances as f64, value(level)));
        all.filter(|(_, value)| *value > 0.0).collect()
    };
    let shown = crowds.iter().map(|crowd| (*crowd, points(crowd)));
    let shown: Vec<(&Crowd, Vec<(f64, f64)>)> =
        shown.filter(|(_, points)| points.len() > 1).collect();
    let values = || shown.iter().flat_map(|(_, points)| points.iter().copied());
    let most = values().map(|(instances, _)| instances).fold(1.0, f64::max);
    let vertical = LogScale::over(values().map(|(_, value)| value), CURVES - 6.0, 14.0);
    let Some(vertical) = vertical else {
        return String::new();
    };
    let across = |instances: f64| LEFT + instances.log2() / most.log2() * (WIDTH - 30.0 - LEFT);
    let mut svg = open(CURVES + 44.0, what);
    for tick in vertical.ticks() {
        let label = format!("{} {unit}", trimmed(tick));
        svg += &level(vertical.at(tick), &label);
    }
    let doublings = (0..=most.log2() as u32).map(|power| f64::from(1 << power));
    for instances in doublings {
        let _ = write!(
            svg,
            "<text class=\"quiet\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{instances}</text>",
            across(instances),
            CURVES + 16.0
        );
    }
    let _ = write!(
        svg,
        "<text class=\"quiet\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">instances</text>",
        (LEFT + WIDTH - 30.0) / 2.0,
        CURVES + 36.0
    );
    let drawn: Vec<Named> = shown
        .iter()
        .map(|(crowd, _)| (crowd.name, crowd.kind))
        .collect();
    for (number, (_, points)) in shown.iter().enumerate() {
        let place = |(instances, value): &(f64, f64)| {
            format!("{:.1} {:.1}", across(*instances), vertical.at(*value))
        };
        let path: Vec<String> = points.iter().map(place).collect();
        svg += &curve(&drawn, number, &format!("M{}", path.join("L")));
    }
    svg + "</svg>" + &legend(&drawn)
}
