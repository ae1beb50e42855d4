//! The command `kvmlet-serve`, which `kvmlet firecracker` executes, and which is `firecracker` under that name.

use kvmlet_sys::streams;
use std::process::ExitCode;

fn main() -> ExitCode {
    streams::set_up();
    kvmlet_serve::run().into()
}
