//! An instance as lists show it.

use kvmlet_manager::{End, Moment, State, View};
use serde_json::{Value, json};
use std::time::Duration;

/// What `ps` shows of it: docker's fields.
pub(in super::super) fn row(view: &View, now: Moment, whole: bool) -> Value {
    let id = match whole {
        true => view.id.as_str(),
        false => view.id.short(),
    };
    let command = format!("\"{}\"", view.asked.command.join(" ").escape_debug());
    let command = match whole || command.chars().count() <= COMMAND {
        true => command,
        false => command
            .chars()
            .take(COMMAND - 1)
            .chain(['\u{2026}'])
            .collect(),
    };
    let labels = view
        .asked
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    json!({
        "ID": id,
        "Names": view.called(),
        "Image": view.asked.image,
        "Command": if view.asked.command.is_empty() { String::new() } else { command },
        "CreatedAt": view.asked.created,
        "RunningFor": format!("{} ago", span(now.since(view.asked.created))),
        "Ports": ports(view).join(", "),
        "State": view.state,
        "Status": status(view, now),
        "Health": view.record.health.as_deref().unwrap_or_default(),
        "Labels": labels.collect::<Vec<_>>().join(","),
    })
}

/// Characters of a command that lists show.
const COMMAND: usize = 20;

/// The names of columns.
pub(in super::super) fn heading(field: &str) -> String {
    match field {
        "ID" => "INSTANCE ID".into(),
        "CreatedAt" => "CREATED AT".into(),
        "RunningFor" => "CREATED".into(),
        other => other.to_uppercase(),
    }
}

/// The ports that were asked to be published.
pub(in super::super) fn ports(view: &View) -> Vec<String> {
    let nets = view.asked.config["nets"].as_array();
    let published = nets
        .into_iter()
        .flatten()
        .filter_map(|net| net["publish"].as_array());
    published
        .flatten()
        .map(|port| port.as_str().map_or(port.to_string(), Into::into))
        .collect()
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 hours ago`.
fn status(view: &View, now: Moment) -> String {
    let up = || {
        let started = view.record.started.unwrap_or(now);
        format!("Up {}", span(now.since(started)))
    };
    let ended = |word: &str| match &view.record.outcome {
        Some(outcome) => format!(
            "{word} ({}) {} ago",
            outcome.code,
            span(now.since(outcome.ended))
        ),
        None => word.into(),
    };
    match (view.state, &view.record.health) {
        (State::Running, Some(health)) => format!("{} ({health})", up()),
        (State::Running, None) => up(),
        (State::Paused, _) => format!("{} (Paused)", up()),
        (State::Created, _) => "Created".into(),
        (State::Restarting, _) => ended("Restarting"),
        (State::Exited, _) => ended("Exited"),
        (State::Dead, _) => match &view.end {
            Some(end) => format!("Dead ({end})"),
            None => "Dead".into(),
        },
    }
}

/// The code that whoever waits is told: of one whose supervisor was killed that of the signal, as docker's after a restart
/// of the host.
pub(in super::super) fn code(end: &End) -> u8 {
    match end {
        End::Told(outcome) => outcome.code,
        End::Killed | End::Copied => 137,
        End::HostRestarted => 255,
        End::NeverRan => 0,
    }
}

/// A span of time in words, as docker has it.
fn span(time: Duration) -> String {
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
