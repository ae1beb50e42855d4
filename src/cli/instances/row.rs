//! An instance as lists show it.

use crate::port::{ends, guest};
use kvmlet_manager::{End, Moment, State, Text, View};
use kvmlet_spec::PortMapping;
use serde_json::{Value, json};
use std::time::Duration;

/// What `ps` shows of it: docker's fields.
pub(in super::super) fn row(view: &View, now: Moment, whole: bool) -> Value {
    let id = match whole {
        true => view.id.as_str(),
        false => view.id.short(),
    };
    let labels = view
        .asked
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    json!({
        "ID": id,
        "Names": view.called(),
        "Image": if whole { &view.asked.image } else { view.asked.image_name() },
        "Command": command(view, whole),
        "CreatedAt": view.asked.created,
        "RunningFor": format!("{} ago", span(now.since(view.asked.created))),
        "Ports": shown_ports(view),
        "State": view.state,
        "Status": status(view, now),
        "Health": view.record.health.as_deref().unwrap_or_default(),
        "Labels": labels.collect::<Vec<_>>().join(","),
    })
}

/// Characters of a command that lists show.
const COMMAND: usize = 20;

/// The command in quotes, and cut, unless it is wanted whole.
fn command(view: &View, whole: bool) -> String {
    let words = view.asked.command.iter().map(Text::to_string_lossy);
    let words = words.collect::<Vec<_>>().join(" ");
    let quoted = format!("\"{}\"", words.escape_debug());
    match whole || quoted.chars().count() <= COMMAND {
        // What the image says itself is not known here.
        _ if words.is_empty() => IMAGES_OWN.into(),
        true => quoted,
        false => {
            let cut = quoted.chars().take(COMMAND - 1);
            cut.chain(['\u{2026}']).collect()
        }
    }
}

/// Instead of a command, where none was said.
const IMAGES_OWN: &str = "(the image's)";

/// The published ports as docker shows them. Of those that the host chooses only the guest's are known.
fn shown_ports(view: &View) -> String {
    let shown = ports(view).into_iter().flat_map(|text| {
        let Ok(port) = text.parse::<PortMapping>() else {
            return vec![text];
        };
        let ends: Vec<String> = ends(&port)
            .map(|end| format!("{end}->{}", guest(&port)))
            .collect();
        match ends.is_empty() {
            true => vec![guest(&port)],
            false => ends,
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

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
        (State::Running, Some(health)) if health == "starting" => {
            format!("{} (health: starting)", up())
        }
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
