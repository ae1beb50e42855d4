//! The command line of `kvmlet serve`, which `kvmlet-serve` reads.

use crate::firecracker::{Flag, Line};

/// The verb.
pub const SERVE: &str = "serve";

/// Its command line.
pub const SERVE_LINE: Line = Line {
    verb: SERVE,
    about: "Serve an API for all VMs of this user",
    more: "Answers HTTP on a Unix socket: VMs are made, started, watched and ended by it, as by other commands. Nothing needs it: \
           VMs go on when it ends. See docs/api.md.",
    flags: &[
        Flag::valued(
            "socket",
            "PATH",
            "Path of the socket [default: api.sock in the directory of this user's instances]",
        ),
        Flag::valued(
            "vm",
            "SOCKET",
            "Serve one VM instead, by its control socket, which may be one of `kvmlet boot`. It ends with the VM",
        ),
        Flag::switch("help", "Print this"),
    ],
    rest: None,
};
