//! What can go wrong between a VM and its host.

use kvmlet_sys::remedy::Remedy;
use kvmlet_vmm::vm;

/// Why a VM cannot have what it is to have, or cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The VM itself.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// A network that cannot be set up.
    #[error("cannot give the VM a network interface")]
    Net(#[from] kvmlet_host::net::Error),
    /// There is no place to note what the VM has of this host.
    #[error(transparent)]
    Runtime(#[from] kvmlet_host::runtime::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<String> {
        match self {
            Error::Vm(error) => error.help(),
            Error::Net(error) => error.help(),
            Error::Runtime(error) => Some(error.help()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_way_out_comes_along() {
        let error = Error::from(vm::Error::Open {
            what: "guest kernel",
            path: "nowhere".into(),
            source: io::Error::from_raw_os_error(2),
        });
        assert_eq!(error.to_string(), "cannot open guest kernel `nowhere`");
        let remedy = error.remedy().unwrap();
        assert_eq!(remedy, "build one with `kernels/build`, or pass --kernel");
    }
}
