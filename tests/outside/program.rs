//! A program outside the repository: a VM in the jail, with a share of the host and a network.

use kvmlet::config::JailMode;
use kvmlet::{Instance, MemorySize, Surroundings, VmConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kvmlet::init();
    let kernel = std::env::args_os().nth(1).ok_or("name a kernel")?;
    let config = VmConfig::builder()
        .kernel(kernel)
        .cmdline("code=7")
        .memory(64.mib())
        .jail(JailMode::Required)
        .best_effort(true)
        .cpu_quota("0.5".parse()?)
        .net("".parse()?)
        .build()?;
    let outcome = Instance::start(config, Surroundings::default())?.wait()?;
    println!("{:?}, code {:?}", outcome.reason, outcome.code);
    Ok(())
}
