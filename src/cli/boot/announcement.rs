//! One line for who starts a VM at a terminal: what it is, and where it is reached.

use kvmlet_host::net::Network;
use kvmlet_spec::VmConfig;
use kvmlet_sys::standard_error;
use std::fmt::Write;
use std::io::{self, IsTerminal};

/// Prints it to standard error.
pub(super) fn print(config: &VmConfig, networks: &[Network]) {
    let line = line(config, networks, io::stdin().is_terminal());
    standard_error::say(format_args!("{line}"));
}

fn line(config: &VmConfig, networks: &[Network], has_keys: bool) -> String {
    let vcpus = config.vcpus.get();
    let mut line = format!("kvmlet: kernel {}", config.kernel.display());
    let root = config.disks.first().filter(|_| config.guest.root.is_some());
    // Writing to a String cannot fail.
    if let Some(root) = root {
        let _ = write!(line, ", root {}", root.source);
    }
    let plural = if vcpus == 1 { "" } else { "s" };
    let _ = write!(line, ", {}, {vcpus} vCPU{plural}", config.memory);
    for network in networks {
        if let Some(guest) = &network.interface().guest {
            let _ = write!(line, ", address {}", guest.address);
        }
    }
    let ports: Vec<String> = networks
        .iter()
        .flat_map(Network::published)
        .map(ToString::to_string)
        .collect();
    if !ports.is_empty() {
        let _ = write!(line, ", published {}", ports.join(" "));
    }
    if has_keys {
        line += "; Ctrl-] ends it";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_spec::MemorySize;

    #[test]
    fn it_tells_what_starts() {
        let config = VmConfig::builder().kernel("vmlinux").vcpus(2);
        let config = config.memory(64.mib()).root("nginx.erofs").build().unwrap();
        assert_eq!(
            line(&config, &[], true),
            "kvmlet: kernel vmlinux, root nginx.erofs, 64 MiB, 2 vCPUs; Ctrl-] ends it"
        );
    }
}
