//! A host agent that runs ten tenants, each in a VM, and survives its own restart: kill it as you like, start it again, and
//! it finds its VMs.
//!
//! `cargo run -p kvmlet --example agent -- DIRECTORY KERNEL [CMDLINE]`; without a kernel, it ends all that run.
//!
//! What it knows of a tenant is in files: `NAME.pid` has the number of the process that attends the VM and when that was
//! started, so that a number which was given anew is not taken for it; `NAME.outcome` is written by that process when the
//! VM has ended. A VM that an agent has started in this life is asked by its channel, one of an earlier life by signals:
//! SIGTERM has its guest end, and the file tells how.

use kvmlet::{Instance, MemorySize, Running, Surroundings, VmConfig};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const TENANTS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    kvmlet::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rest @ ..] = &words[..] else {
        return Err("name a directory, and a kernel".into());
    };
    fs::create_dir_all(directory)?;
    let tenants = (0..TENANTS).map(|number| Tenant {
        base: Path::new(directory).join(format!("tenant{number}")),
    });
    match rest {
        [] => tenants.for_each(|tenant| tenant.end()),
        [kernel, cmdline @ ..] => {
            for tenant in tenants {
                tenant.see_to(kernel, &cmdline.join(" "))?;
            }
        }
    }
    Ok(())
}

/// One tenant, by the files that are kept of it.
struct Tenant {
    base: PathBuf,
}

impl Tenant {
    fn file(&self, extension: &str) -> PathBuf {
        self.base.with_extension(extension)
    }

    /// Starts its VM, unless that runs.
    fn see_to(&self, kernel: &str, cmdline: &str) -> Result<(), Box<dyn Error>> {
        if let Some(process) = self.process() {
            println!("{}: found, process {process}", self.base.display());
            return Ok(());
        }
        if let Ok(outcome) = fs::read_to_string(self.file("outcome")) {
            println!("{}: had ended: {}", self.base.display(), outcome.trim());
            fs::remove_file(self.file("outcome"))?;
        }
        let config = VmConfig::builder().kernel(kernel).cmdline(cmdline);
        let config = config.memory(64.mib()).best_effort(true).build()?;
        let mut surroundings = Surroundings::default();
        surroundings.outlives = true;
        surroundings.outcome = Some(self.file("outcome"));
        let running = Instance::start(config, surroundings)?;
        self.note(running)
    }

    /// Notes whose VM this is, and leaves it to itself.
    fn note(&self, running: Running) -> Result<(), Box<dyn Error>> {
        let process = running.pid();
        let note = format!("{process} {}", started(process).unwrap_or_default());
        fs::write(self.file("new"), note)?;
        fs::rename(self.file("new"), self.file("pid"))?;
        println!("{}: started, process {process}", self.base.display());
        running.leave();
        Ok(())
    }

    /// The process that attends its VM, if that runs.
    fn process(&self) -> Option<u32> {
        let note = fs::read_to_string(self.file("pid")).ok()?;
        let (process, since) = note.split_once(' ')?;
        let process = process.parse().ok()?;
        (started(process)? == since).then_some(process)
    }

    fn end(&self) {
        let Some(process) = self.process() else {
            return;
        };
        let _ = Command::new("kill").arg(process.to_string()).status();
        while self.process().is_some() {
            sleep(Duration::from_millis(50));
        }
        let outcome = fs::read_to_string(self.file("outcome")).unwrap_or_default();
        println!("{}: {}", self.base.display(), outcome.trim());
    }
}

/// When a process was started, in ticks since the host was: no two of the same number have it in common
/// (proc_pid_stat(5)). None for one that has ended.
fn started(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    (fields.next()? != "Z").then(|| fields.nth(18).map(Into::into))?
}
