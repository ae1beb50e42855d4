//! `kvmlet top`.

use super::Outcome;
use super::format::Format;
use super::instances::agent::{PATIENCE, failed, reach};
use clap::Args;
use kvmlet_control::agent::Process;
use serde_json::{Value, json};
use std::time::Duration;

const TABLE: &str = "{{.PID}}\t{{.PPID}}\t{{.User}}\t{{.Time}}\t{{.RSS}}\t{{.Command}}";

const VAIN: &str = "there is no list of the processes of";

/// The kernel's own thread whose children its others are.
const KERNEL: u32 = 2;

/// List the processes in an instance that runs.
///
/// USER is a number of the guest's, TIME what it has had of processors, RSS how much of its memory is in RAM, in KiB. The image needs
/// no program for that. The kernel's threads are left out.
#[derive(Args)]
pub(super) struct Top {
    /// How to print: json, table, a template of fields such as {{.PID}}, or `table TEMPLATE`.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

impl Top {
    pub fn run(self) -> Outcome {
        let format = Format::parse(self.format.as_deref(), TABLE)?;
        let (view, mut agent) = reach(&self.instance, VAIN)?;
        let listed = agent.processes(PATIENCE);
        let listed = listed.map_err(|error| failed(&view, VAIN, error))?;
        kvmlet_command::print(format.render(&rows(listed), str::to_uppercase)?)?;
        Ok(0)
    }
}

fn rows(mut processes: Vec<Process>) -> Vec<Value> {
    processes.retain(|process| process.pid != KERNEL && process.parent != KERNEL);
    processes.sort_by_key(|process| process.pid);
    processes.iter().map(row).collect()
}

fn row(process: &Process) -> Value {
    json!({
        "PID": process.pid,
        "PPID": process.parent,
        "User": process.uid,
        "Time": time(process.cpu),
        "RSS": process.rss_kib,
        "Command": process.command,
    })
}

/// As ps(1) has it: hours, minutes and seconds, with days before them where there are some.
fn time(cpu: Duration) -> String {
    let seconds = cpu.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let clock = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match days {
        0 => clock,
        days => format!("{days}-{clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_ps_tells_them() {
        for (seconds, expected) in [
            (0, "00:00:00"),
            (61, "00:01:01"),
            (86_399, "23:59:59"),
            (90_061, "1-01:01:01"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), expected);
        }
    }
}
