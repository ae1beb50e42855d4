//! Powers off with the exit code that the command line names: `code=7`.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;

kvmlet_guests::program!(run);

fn run(info: &BootInfo) -> u8 {
    let code = info.number("code").unwrap_or(0);
    assert!(code <= 0xff, "command line: code={code} is above 255");
    code as u8
}
