//! The OpenMetrics text format (<https://prometheus.io/docs/specs/om/open_metrics_spec>): families of numbers.

use std::fmt::{Display, Write};

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What only grows.
    Counter,
    /// What goes up and down.
    Gauge,
}

/// A text that is written.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    name: &'static str,
    suffix: &'static str,
}

impl Exposition {
    /// Begins a family: what is said next is of it. Names and help are kvmlet's own, and need no escaping.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Self {
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        (self.name, self.suffix) = (name, suffix);
        self.line(format_args!("# TYPE {name} {kind}"));
        for unit in ["seconds", "bytes"] {
            if name
                .strip_suffix(unit)
                .is_some_and(|rest| rest.ends_with('_'))
            {
                self.line(format_args!("# UNIT {name} {unit}"));
            }
        }
        self.line(format_args!("# HELP {name} {help}"));
        self
    }

    /// One number of the family, told from others by labels.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> &mut Self {
        let (name, suffix) = (self.name, self.suffix);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{name}{suffix}");
        for (number, (label, of)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{of}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.line(format_args!("{end} {value}"));
        self
    }

    /// A family with one number, if that is known.
    pub fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.family(name, kind, help).sample(&[], value);
        }
    }

    /// A family with a number for each of a list, if there are any.
    pub fn each<V: Display>(
        &mut self,
        (name, label): (&'static str, &str),
        kind: Kind,
        help: &str,
        values: impl Iterator<Item = V>,
    ) {
        let mut values = values.enumerate().peekable();
        if values.peek().is_some() {
            self.family(name, kind, help);
        }
        for (number, value) in values {
            self.sample(&[(label, &number)], value);
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.line(format_args!("# EOF"));
        self.text
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{text}");
    }
}

/// Microseconds as seconds.
pub(super) fn seconds(us: u64) -> impl Display {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_has_it() {
        let mut exposition = Exposition::default();
        exposition
            .family("kvmlet_x_bytes", Kind::Counter, "Of x.")
            .sample(&[("disk", &0), ("way", &"in")], 7);
        exposition.one("kvmlet_y", Kind::Gauge, "Y.", Some(seconds(1_500_000)));
        exposition.one("kvmlet_z", Kind::Gauge, "Z.", None::<u8>);
        exposition.each(
            ("kvmlet_none", "n"),
            Kind::Gauge,
            "None.",
            [0; 0].into_iter(),
        );
        exposition.each(
            ("kvmlet_some", "n"),
            Kind::Gauge,
            "Some.",
            [5, 6].into_iter(),
        );
        assert_eq!(
            exposition.finish(),
            "# TYPE kvmlet_x_bytes counter\n# UNIT kvmlet_x_bytes bytes\n# HELP kvmlet_x_bytes Of x.\n\
             kvmlet_x_bytes_total{disk=\"0\",way=\"in\"} 7\n\
             # TYPE kvmlet_y gauge\n# HELP kvmlet_y Y.\nkvmlet_y 1.500000\n\
             # TYPE kvmlet_some gauge\n# HELP kvmlet_some Some.\nkvmlet_some{n=\"0\"} 5\nkvmlet_some{n=\"1\"} 6\n# EOF\n"
        );
    }
}
