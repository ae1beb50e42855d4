//! An instance as lists show it.

use super::kernel;
use crate::ports::{ends, guest};
use kvmlet_command::shown::span;
use kvmlet_manager::{End, Moment, State, Step, Text, View};
use kvmlet_spec::PortMapping;
use serde_json::{Value, json};

/// What `ps` shows of it, to which these ports lead: docker's fields.
pub(in super::super) fn row(view: &View, ports: Vec<String>, now: Moment, whole: bool) -> Value {
    let id = match whole {
        true => view.id.as_str(),
        false => view.id.short(),
    };
    let labels = view
        .asked
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let is_outdated = kernel::is_outdated(view);
    let mut status = status(view, now);
    if is_outdated {
        status.push_str(" (older kernel)");
    }
    json!({
        "ID": id,
        "Names": view.called(),
        "Image": if whole { &view.asked.image } else { view.asked.image_name() },
        "Command": command(view, whole),
        "CreatedAt": view.asked.created,
        "RunningFor": format!("{} ago", span(now.since(view.asked.created))),
        "Ports": shown_ports(ports),
        "State": view.state,
        "Status": status,
        "KernelOutdated": is_outdated,
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

/// The published ports as docker shows them. Of those that the host has not chosen yet only the guest's are known.
fn shown_ports(ports: Vec<String>) -> String {
    let shown = ports.into_iter().flat_map(|text| {
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
        (State::Suspended, _) => {
            let why = if view.record.idle { " (idle)" } else { "" };
            match view.record.suspended {
                Some(since) => format!("Suspended{why} {} ago", span(now.since(since))),
                None => format!("Suspended{why}"),
            }
        }
        (State::Created, _) => "Created".into(),
        (State::Restarting, _) if view.record.step == Step::Starting => "Resuming".into(),
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
        End::NeverRan | End::Suspended => 0,
    }
}
