//! The command `kvmlet-serve`, which `kvmlet firecracker` executes, and which is `firecracker` under that name.

use kvmlet_sys::process;
use std::process::ExitCode;

fn main() -> ExitCode {
    process::set_up_streams();
    kvmlet_serve::run().into()
}
