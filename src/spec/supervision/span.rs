//! Spans of time as Go writes them, which docker's flags take (`time.ParseDuration`).

use super::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time, whole nanoseconds, up to 290 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Nanoseconds that a signed 64-bit number holds, as Go has it.
const MOST: u128 = i64::MAX as u128;

const UNITS: [(&str, u128); 8] = [
    // Longer names first where one begins with another.
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Span {
    /// The least that a health check takes.
    pub const SHORTEST: Self = Self(Duration::from_millis(1));

    /// This many seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration.min(Duration::from_nanos(i64::MAX as u64)))
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Span { text: text.into() };
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = 0_u128;
        while !rest.is_empty() {
            let (part, behind) = first_part(rest).ok_or_else(wrong)?;
            total = total.saturating_add(part);
            rest = behind;
        }
        match u64::try_from(total) {
            Ok(nanoseconds) if total <= MOST => Ok(Self(Duration::from_nanos(nanoseconds))),
            _ => Err(wrong()),
        }
    }
}

/// Nanoseconds of the first number with its unit, and what is behind it.
fn first_part(text: &str) -> Option<(u128, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = text.split_at(digits(text));
    let mut fraction = "";
    if let Some(behind) = rest.strip_prefix('.') {
        (fraction, rest) = behind.split_at(digits(behind));
    }
    if whole.is_empty() && fraction.is_empty() || whole.len() > 20 {
        return None;
    }
    let (name, unit) = UNITS.iter().find(|(name, _)| {
        let behind = rest.strip_prefix(name);
        // `m` is not a part of `ms`.
        behind.is_some_and(|behind| !behind.starts_with(|c: char| c.is_alphabetic()))
    })?;
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u128>().ok()?
    };
    // What is below a nanosecond counts for nothing.
    let fraction: String = fraction.chars().take(18).collect();
    let tenths: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let below = tenths * unit / 10_u128.pow(fraction.len() as u32);
    Some((
        whole.checked_mul(*unit)?.checked_add(below)?,
        &rest[name.len()..],
    ))
}

/// As Go prints it: `1h30m0s`, `1.5s`, `300ms`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimal = |amount: u128, unit: u128| {
            let digits = unit.ilog10() as usize;
            let text = format!("{}.{:0digits$}", amount / unit, amount % unit);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let all = self.0.as_nanos();
        let (minutes, seconds) = (all / 60_000_000_000, all % 60_000_000_000);
        match all {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{all}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", decimal(all, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(all, 1_000_000)),
            _ => {
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                let seconds = match seconds {
                    0 => "0".into(),
                    _ => decimal(seconds, 1_000_000_000),
                };
                write!(f, "{seconds}s")
            }
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanoseconds(text: &str) -> Option<u128> {
        text.parse().ok().map(|span: Span| span.0.as_nanos())
    }

    /// From the tests of Go's package time.
    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1478s", 1_478_000_000_000),
            ("+5s", 5_000_000_000),
            ("+0", 0),
            ("5.0s", 5_000_000_000),
            ("5.6s", 5_600_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("15m", 900_000_000_000),
            ("3h30m", 12_600_000_000_000),
            ("10.5s4m", 250_500_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("9223372036854775807ns", i64::MAX as u128),
            ("0.3333333333333333333h", 1_199_999_999_999),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "3",
            "-1s",
            "s",
            ".",
            "-",
            ".s",
            "+.s",
            "1d",
            "1 s",
            "1s ",
            "1msx",
            "x",
            "9223372036854775808ns",
            "3000000h",
            "99999999999999999999999999s",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_printed_as_go_prints_them() {
        for (text, expected) in [
            ("0", "0s"),
            ("1ns", "1ns"),
            ("1100ns", "1.1\u{b5}s"),
            ("2200us", "2.2ms"),
            ("3300ms", "3.3s"),
            ("245s", "4m5s"),
            ("245.001s", "4m5.001s"),
            ("5h6m7.001s", "5h6m7.001s"),
            ("8m1ns", "8m0.000000001s"),
            ("90m", "1h30m0s"),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(nanoseconds in 0..=i64::MAX as u64) {
            let span = Span(Duration::from_nanos(nanoseconds));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_is_too_odd(text in "[0-9.hmsnu\u{b5}+ -]{0,40}") {
            let _ = text.parse::<Span>();
        }
    }
}
