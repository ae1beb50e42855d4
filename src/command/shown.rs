//! Times and sizes as docker writes them.

use std::time::Duration;

/// A span of time in words, as docker has it.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

/// `1.2kB`, as docker writes what was moved, and how large images are.
pub fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// `12.5MiB`, as docker writes memory.
pub fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// In the largest unit of which there is one, with four digits at the most.
fn scaled(bytes: u64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= step && unit + 1 < units.len() {
        (value, unit) = (value / step, unit + 1);
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_as_docker_tells_them() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
            (5_184_000, "2 months"),
            (63_072_000, "2 years"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
