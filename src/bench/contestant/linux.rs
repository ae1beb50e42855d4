//! The Linux guest that every VMM boots: the same kernel, command line and initramfs.

use super::Service;
use crate::workshop::Programs;
use std::path::PathBuf;

/// What every VMM is given. VMMs add what their devices need.
pub(super) struct Guest {
    pub kernel: Option<PathBuf>,
    pub initramfs: PathBuf,
}

impl Guest {
    pub fn new(programs: &Programs) -> Self {
        Self {
            kernel: programs.kernel.clone(),
            initramfs: programs.initramfs(),
        }
    }

    /// The kernel's messages stay off the serial port, which would be measured otherwise: a byte is an exit.
    pub fn cmdline(service: Service) -> &'static str {
        match service {
            Service::Ends => "console=ttyS0 reboot=k panic=-1 quiet kvmlet.arg=/bin/ready",
            Service::Stays => {
                "console=ttyS0 reboot=k panic=-1 quiet kvmlet.arg=/bin/ready kvmlet.arg=stay"
            }
        }
    }

    /// Why there is no guest to boot, if there is none.
    pub fn missing(&self) -> Option<String> {
        match &self.kernel {
            Some(kernel) if kernel.exists() => None,
            Some(kernel) => Some(format!(
                "there is no guest kernel `{}`; run `kernels/build` once",
                kernel.display()
            )),
            None => Some("there is no cache directory for a guest kernel; set HOME".into()),
        }
    }
}
