//! How the agent's connections come about.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;

use kvmlet_contract::AgentSpec;
use kvmlet_contract::channel::AGENT_PORT;

use crate::appear;
use crate::sys::{self, Address, Errno, File};

/// Begins to connect to the host, which goes on while other things are done.
pub fn connect(spec: &AgentSpec) -> Result<File, String> {
    let failed = |error: Errno| format!("reach the host over {spec}: {error}");
    let address = match spec {
        AgentSpec::Vsock => Address::host(AGENT_PORT),
        AgentSpec::Directory(path) => {
            Address::unix(format!("{path}/host").as_bytes()).map_err(failed)?
        }
    };
    appear::wait_for("virtio-vsock", || File::connect(&address)).map_err(failed)
}

/// Listens for the host.
pub fn listen(spec: &AgentSpec) -> Result<File, String> {
    let failed = |error: Errno| format!("listen for the host on {spec}: {error}");
    let address = match spec {
        AgentSpec::Vsock => Address::own(AGENT_PORT),
        AgentSpec::Directory(path) => {
            let path = format!("{path}/guest");
            let _ = sys::unlink(&CString::new(path.as_str()).unwrap_or_default());
            Address::unix(path.as_bytes()).map_err(failed)?
        }
    };
    File::listen(&address).map_err(failed)
}
