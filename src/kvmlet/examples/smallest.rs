//! The smallest VM: in this process, without walls. `cargo run -p kvmlet --example smallest -- KERNEL [INITRD]`

use kvmlet::{MemorySize, Vm, VmConfig};
use std::env::args_os;
use std::error::Error;
use std::io::stdout;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = args_os().skip(1);
    let kernel = words
        .next()
        .ok_or("name a kernel, and an initrd if it needs one")?;
    let mut config = VmConfig::builder().kernel(kernel).memory(128.mib());
    if let Some(initrd) = words.next() {
        config = config.initrd(initrd);
    }
    let vm = Vm::with_console(config.build()?, stdout())?.start()?;
    println!("{}", vm.wait()?);
    Ok(())
}
