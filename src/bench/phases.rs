//! Where the time of kvmlet's own start goes.

use super::error::Halt;
use super::launch::Launch;
use super::running::Running;
use super::statistics::Summary;
use super::workshop::{Programs, Workshop};
use kvmlet_spec::StartRecord;
use kvmlet_sys::clock::monotonic_ns;
use kvmlet_sys::signals::Signals;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

/// One part of a start, from the end of the part before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// What happens in it.
    pub name: String,
    /// What it took, over several starts.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What `kvmlet boot --stats` writes, as far as it is of interest here.
#[derive(Deserialize)]
struct Stats {
    start: StartRecord,
}

/// Starts a bare-metal guest several times, apart from all rounds, and asks kvmlet when each phase was done.
/// Milliseconds; the clock is the same on both sides.
pub(super) fn measure(
    programs: &Programs,
    workshop: &Workshop,
    starts: usize,
    signals: &Signals,
) -> Result<Vec<Segment>, Halt> {
    let mut names: Vec<String> = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for _ in 0..starts {
        for (number, (name, ms)) in once(programs, workshop, signals)?.into_iter().enumerate() {
            if number == names.len() {
                names.push(name);
                values.push(Vec::new());
            }
            values[number].push(ms);
        }
    }
    let segment = |(name, values): (String, Vec<f64>)| {
        Some(Segment {
            name,
            summary: Summary::of(&values)?,
        })
    };
    Ok(names.into_iter().zip(values).filter_map(segment).collect())
}

/// The parts of one start in order, in milliseconds.
fn once(
    programs: &Programs,
    workshop: &Workshop,
    signals: &Signals,
) -> Result<Vec<(String, f64)>, Halt> {
    const DEADLINE: Duration = Duration::from_secs(20);
    let file = workshop.path().join("start.json");
    let guest = programs.guest("ready");
    let launch = Launch::new([
        programs.kvmlet.as_os_str(),
        OsStr::new("boot"),
        OsStr::new("--jail"),
        OsStr::new("--no-rng"),
        OsStr::new("--kernel"),
        guest.as_os_str(),
        OsStr::new("--stats"),
        file.as_os_str(),
    ]);
    let mut running = Running::start(&launch.argv, &workshop.path().join("stderr"), DEADLINE)?;
    let spawned = monotonic_ns(running.started());
    let ready = spawned + running.wait_ready(signals)?.as_nanos() as u64;
    let gone = spawned + running.wait_gone(signals)?.as_nanos() as u64;
    let failed = |error: String| Halt::Failed(format!("`{}`: {error}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let stats: Stats = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(segments(&stats.start, spawned, ready, gone))
}

/// The record's phases with what happens before and behind them.
fn segments(record: &StartRecord, spawned: u64, ready: u64, gone: u64) -> Vec<(String, f64)> {
    let before = [
        ("spawn", record.process_ns),
        ("exec, arguments", record.begun_ns),
    ];
    let phases = record
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.done_ns));
    let behind = [("ready is read", ready), ("end", gone)];
    let mut last = spawned;
    let mut segments = Vec::new();
    for (name, done) in before.into_iter().chain(phases).chain(behind) {
        // The process's start is an estimate and may lie a little before the spawn.
        segments.push((name.to_owned(), done.saturating_sub(last) as f64 / 1e6));
        last = done.max(last);
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_spec::PhaseRecord;

    #[test]
    fn segments_fill_the_time_from_spawn_to_end() {
        let phase = |name: &str, done_ns| PhaseRecord {
            name: name.into(),
            done_ns,
        };
        let record = StartRecord {
            process_ns: 900_000,
            begun_ns: 2_000_000,
            phases: vec![
                phase("create VM", 3_000_000),
                phase("first exit", 4_500_000),
            ],
        };
        let segments = segments(&record, 1_000_000, 5_000_000, 7_000_000);
        let expected = [
            ("spawn", 0.0),
            ("exec, arguments", 1.0),
            ("create VM", 1.0),
            ("first exit", 1.5),
            ("ready is read", 0.5),
            ("end", 2.0),
        ];
        assert_eq!(segments, expected.map(|(name, ms)| (name.to_owned(), ms)));
        assert_eq!(segments.iter().map(|(_, ms)| ms).sum::<f64>(), 6.0);
    }
}
