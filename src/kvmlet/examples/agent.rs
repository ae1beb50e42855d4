//! A host agent that runs ten tenants, each in a VM, and survives its own restart: kill it as you like, start it again, and
//! it finds its VMs and holds them.
//!
//! `cargo run -p kvmlet --example agent -- DIRECTORY KERNEL [CMDLINE]` runs until its standard input ends, and then leaves the VMs
//! alone; without a kernel, it ends all that run.
//!
//! What it knows of a tenant are files: `NAME.sock` is there as long as the VM runs, `NAME.outcome` is written when it has
//! ended, whoever holds it then, and `NAME.log` has what kvmlet says of it.

use kvmlet::instance::Error as VmError;
use kvmlet::{Instance, MemorySize, Outcome, Running, Surroundings, VmConfig};
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TENANTS: usize = 10;
/// How long a tenant's service has to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processes in the jail may map no memory. With glibc there is no need of this.
#[global_allocator]
static ALLOCATOR: kvmlet::instance::Allocator = kvmlet::instance::Allocator;

fn main() -> Result<(), Box<dyn Error>> {
    kvmlet::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rest @ ..] = &words[..] else {
        return Err("name a directory, and a kernel".into());
    };
    fs::create_dir_all(directory)?;
    let tenants: Vec<Tenant> = (0..TENANTS)
        .map(|number| Tenant {
            base: Path::new(directory).join(format!("tenant{number}")),
        })
        .collect();
    let [kernel, cmdline @ ..] = rest else {
        return tenants.iter().try_for_each(Tenant::end);
    };
    let cmdline = cmdline.join(" ");
    // One that cannot have its VM is no reason to end those of the others.
    let hold = |tenant: &Tenant| {
        let held = tenant.hold(kernel, &cmdline);
        held.inspect_err(|error| eprintln!("{}: {error}", tenant.base.display()))
            .ok()
    };
    let held: Vec<Running> = tenants.iter().filter_map(hold).collect();
    println!("holds {} VMs", held.len());
    // What an agent does all day.
    stdin().read_to_end(&mut Vec::new())?;
    for running in held {
        running.leave();
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

    /// Its VM, if that runs.
    fn find(&self) -> Result<Option<Running>, VmError> {
        match Instance::attach(&self.file("sock")) {
            Ok(running) => Ok(Some(running)),
            Err(VmError::Unattached { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its VM, which is started unless it runs.
    fn hold(&self, kernel: &str, cmdline: &str) -> Result<Running, Box<dyn Error>> {
        let name = self.base.display();
        if let Some(running) = self.find()? {
            println!("{name}: found, process {}", running.pid());
            return Ok(running);
        }
        if let Ok(outcome) = fs::read_to_string(self.file("outcome")) {
            println!("{name}: had ended: {}", outcome.trim());
            fs::remove_file(self.file("outcome"))?;
        }
        let config = VmConfig::builder().kernel(kernel).cmdline(cmdline);
        let config = config.memory(64.mib()).best_effort(true).build()?;
        let mut surroundings = Surroundings::default();
        surroundings.outlives = true;
        surroundings.control = Some(self.file("sock"));
        surroundings.outcome = Some(self.file("outcome"));
        // What outlives this program must not hold what that has open: whoever reads its standard error would wait for it.
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))?;
        surroundings.log = Some(log.into());
        let running = Instance::start(config, surroundings)?;
        println!("{name}: started, process {}", running.pid());
        Ok(running)
    }

    fn end(&self) -> Result<(), Box<dyn Error>> {
        if let Some(mut running) = self.find()? {
            let Outcome { reason, code, .. } = running.stop(PATIENCE)?;
            println!("{}: {reason:?}, code {code:?}", self.base.display());
        }
        Ok(())
    }
}
