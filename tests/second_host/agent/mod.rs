//! What runs inside the second host: this test executable, as its first process and as its agent.

mod bring_up;
mod session;
mod tasks;

use std::process::ExitCode;

/// The argument by which this executable is the agent.
const AGENT: &str = "--agent-of-the-second-host";

/// The first process of a machine, or its agent; `None` if this is neither.
pub fn program() -> Option<ExitCode> {
    if std::process::id() == 1 {
        bring_up::main();
    }
    if std::env::args().nth(1)? != AGENT {
        return None;
    }
    Some(tasks::serve())
}
