//! Points in time as files and lists have them: RFC 3339, in UTC, to the nanosecond.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A point in time from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

/// Text that is not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a point in time (2026-11-28, 2026-11-28T17:54:26.5Z, or seconds since 1970)", .0.escape_debug())]
pub struct NotAMoment(pub String);

impl Moment {
    /// Now, by the host's clock.
    pub fn now() -> Self {
        Self(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }

    /// This long after the beginning of 1970.
    pub const fn since_1970(time: Duration) -> Self {
        Self(time)
    }

    /// How long it was before this one; zero if it was not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much earlier.
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }
}

/// `2026-11-28T17:54:26.123456789Z`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.as_secs() / DAY, self.0.as_secs() % DAY);
        let (year, month, day) = date(days);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let (second, nanosecond) = (second % 60, self.0.subsec_nanos());
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z"
        )
    }
}

/// Year, month and day, by the Gregorian calendar: years begin in March here, so that the odd day is the last.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // from 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    match month {
        0..10 => (year, month + 3, day),
        _ => (year + 1, month - 9, day),
    }
}

/// Days from the beginning of 1970; none for a date that the calendar does not have, or an earlier one.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (march_year, march_month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let days =
        march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 + day_of_year;
    let days = days.checked_sub(719_468)?;
    (date(days) == (year, month, day)).then_some(days)
}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        let read = match text.split_once('-') {
            Some(_) => calendar(text),
            None => seconds(text),
        };
        read.map(Self).ok_or_else(|| NotAMoment(text.into()))
    }
}

/// A number of two digits, or of four.
fn number(text: &str, digits: usize) -> Option<u64> {
    let good = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

/// `1795888466.5`: seconds since 1970.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = number(whole, whole.len()).filter(|_| (1..=11).contains(&whole.len()))?;
    Some(Duration::new(whole, nanoseconds(fraction)?))
}

/// What stands behind a decimal point, one to nine digits.
fn nanoseconds(fraction: &str) -> Option<u32> {
    let good =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| format!("{fraction:0<9}").parse().ok())?
}

/// RFC 3339, or a beginning of it: the date alone, hours and minutes; without a zone it is UTC.
fn calendar(text: &str) -> Option<Duration> {
    let (day, time) = match text.split_once(['T', ' ']) {
        Some((_, "")) => return None,
        Some((day, time)) => (day, time),
        None => (text.strip_suffix('Z').unwrap_or(text), ""),
    };
    let mut parts = day.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let days = days(year, month, number(parts.next()?, 2)?)?;
    let (time, east) = zone(time)?;
    let seconds_of_day = match time {
        "" => Duration::ZERO,
        time => clock(time)?,
    };
    let local = Duration::from_secs(days * DAY) + seconds_of_day;
    match east {
        0.. => local.checked_sub(Duration::from_secs(east.unsigned_abs())),
        _ => Some(local + Duration::from_secs(east.unsigned_abs())),
    }
}

/// The time without its zone, and how many seconds east of UTC that is.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return (!time.is_empty()).then_some((time, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 3600 + minutes * 60) as i64;
    Some((
        &time[..at],
        if time[at..].starts_with('-') {
            -seconds
        } else {
            seconds
        },
    ))
}

/// `17:54`, `17:54:26`, `17:54:26.5`.
fn clock(time: &str) -> Option<Duration> {
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (second, fraction) = match parts.next() {
        None => ("00", "0"),
        Some(second) => second.split_once('.').unwrap_or((second, "0")),
    };
    let second = number(second, 2)?;
    // A leap second counts as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(Duration::new(
        hour * 3600 + minute * 60 + second,
        nanoseconds(fraction)?,
    ))
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64, nanoseconds: u32) -> Moment {
        Moment(Duration::new(seconds, nanoseconds))
    }

    #[test]
    fn moments_are_printed() {
        // As `date --utc --date=@SECONDS` has them.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_888_466, "2026-11-28T17:54:26.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(at(seconds, 0).to_string(), expected);
        }
    }

    #[test]
    fn moments_are_read() {
        let noon = 1_795_867_200; // 2026-11-28T12:00:00Z
        for (text, expected) in [
            ("2026-11-28T12:00:00Z", at(noon, 0)),
            ("2026-11-28T12:00:00.25Z", at(noon, 250_000_000)),
            ("2026-11-28T12:00", at(noon, 0)),
            ("2026-11-28 12:00:07", at(noon + 7, 0)),
            ("2026-11-28", at(noon - 43_200, 0)),
            ("2026-11-28T14:30:00+02:30", at(noon, 0)),
            ("2026-11-28T07:00:00-05:00", at(noon, 0)),
            ("1795867200", at(noon, 0)),
            ("1795867200.000000001", at(noon, 1)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026",
            "2026-11",
            "2026-02-29",
            "2026-11-28T",
            "2026-11-28TZ",
            "2026-11-28T24:00",
            "2026-11-28T12:00:00.Z",
            "2026-11-28T12:00:00+2:30",
            "1969-12-31",
            "-1",
            "1.5.",
            "1970-01-01T00:00+01:00",
            "2026-11-28T12:00:61Z",
            "+026-11-28",
        ] {
            let Ok(moment) = text.parse::<Moment>() else {
                continue;
            };
            // Four digits are seconds, and what else passes is a fault.
            assert_eq!((text, moment), ("2026", at(2026, 0)));
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(seconds in 0..250_000_000_000_u64, nanoseconds in 0..1_000_000_000_u32) {
            let moment = at(seconds, nanoseconds);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }

        #[test]
        fn no_text_is_too_odd(text in "[-0-9TZ:.+ ]{0,40}") {
            let _ = text.parse::<Moment>();
        }
    }
}
