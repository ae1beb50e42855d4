//! A VM with walls, a share of the host and a network, in processes of its own.
//! `cargo run -p kvmlet --example walls -- KERNEL [INITRD]`, as root or with what docs/networks.md says.

use kvmlet::config::JailMode;
use kvmlet::{Instance, MemorySize, Surroundings, VmConfig};
use std::env::args_os;
use std::error::Error;
use std::io::{Read, stdin, stdout};
use std::os::fd::AsFd;
use std::time::Duration;

/// Processes in the jail may map no memory. With glibc there is no need of this.
#[global_allocator]
static ALLOCATOR: kvmlet::instance::Allocator = kvmlet::instance::Allocator;

fn main() -> Result<(), Box<dyn Error>> {
    // First of all: the process that attends the VM is this program, started anew, and goes no further.
    kvmlet::init();
    let mut words = args_os().skip(1);
    let kernel = words
        .next()
        .ok_or("name a kernel, and an initrd if it needs one")?;
    let mut config = VmConfig::builder()
        .kernel(kernel)
        .memory(128.mib())
        .jail(JailMode::Required)
        .cpu_quota("0.5".parse()?)
        .net("egress=internet".parse()?)
        .publish("8080:80".parse()?);
    if let Some(initrd) = words.next() {
        config = config.initrd(initrd);
    }
    let mut surroundings = Surroundings::default();
    surroundings.output = Some(stdout().as_fd().try_clone_to_owned()?);
    let mut running = Instance::start(config.build()?, surroundings)?;
    // Standard output is the guest's console, which may be in the middle of a line.
    eprintln!("process {} attends the VM", running.pid());
    // Until somebody has seen enough: the end of standard input is that of the VM.
    stdin().read_to_end(&mut Vec::new())?;
    running.pause()?;
    let stats = running.stats()?;
    println!(
        "{:?} bytes of guest memory are in use",
        stats.vm.memory.resident_bytes
    );
    running.resume()?;
    let outcome = running.stop(Duration::from_secs(10))?;
    println!("{:?}, code {:?}", outcome.reason, outcome.code);
    Ok(())
}
