//! What it may mean that a guest has nothing to say, where that is known.

use kvmlet_spec::VmConfig;
use kvmlet_sys::kvm::Execution;
use kvmlet_vmm::vm::VmHandle;
use std::path::Path;
use std::time::{Duration, Instant};

/// A kernel that comes up has written something by then, or opened its console, on any host with hardware KVM.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest that may be expected to write to its console.
pub(crate) struct Silence {
    /// When it has been silent for long; none once that was looked at, or where it means nothing.
    deadline: Option<Instant>,
}

impl Silence {
    /// Of a guest that begins to run. One whose kernel was not told of the console is silent for good, and one that was
    /// built for hosts that interpret takes its time.
    pub fn of(config: &VmConfig) -> Self {
        let expected = has_console(&config.cmdline) && !is_built_for_interpreters(&config.kernel);
        Self {
            deadline: expected.then(|| Instant::now() + PATIENCE),
        }
    }

    /// The guest stood still, and has its time again.
    pub fn begin_again(&mut self) {
        if self.deadline.is_some() {
            self.deadline = Some(Instant::now() + PATIENCE);
        }
    }

    /// How long until it is to be [looked at](Self::look).
    pub fn due(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Says what it means that nothing has come, where guest kernels are interpreted. That is asked of the processor now
    /// and not before: it takes no system call, which a process in a jail could not make, and nothing of the start.
    pub fn look(&mut self, vm: &VmHandle) {
        if self.due() != Some(Duration::ZERO) {
            return;
        }
        self.deadline = None;
        let console = vm.console();
        if console.has_written()
            || console.is_open()
            || Execution::of_processor() == Execution::Hardware
        {
            return;
        }
        let flavour = Execution::Interpreted.kernel_flavour();
        log::warn!(
            "the guest has written nothing to its console for {} s: this host interprets guest kernel code, where a kernel \
             that is not built for it comes up in minutes, or never; `kernels/build {flavour}` builds one that does",
            PATIENCE.as_secs()
        );
    }
}

/// Is the kernel to write to the first serial port?
fn has_console(cmdline: &str) -> bool {
    let port = |word: &str| word.starts_with("console=ttyS0") || word.starts_with("earlyprintk=");
    cmdline.split_whitespace().any(port)
}

/// Does it lie where `kernels/build` leaves those of that flavour?
fn is_built_for_interpreters(kernel: &Path) -> bool {
    let flavour = Execution::Interpreted.kernel_flavour();
    kernel
        .iter()
        .filter_map(|name| name.to_str())
        .any(|name| name.starts_with(flavour))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_spec::DEFAULT_CMDLINE;

    #[test]
    fn silence_means_something_where_a_console_is_expected() {
        let expected = |kernel: &str, cmdline: &str| {
            let config = VmConfig::builder().kernel(kernel).cmdline(cmdline);
            Silence::of(&config.build().unwrap()).due().is_some()
        };
        assert!(expected("/boot/vmlinuz", DEFAULT_CMDLINE));
        assert!(expected("vmlinux", "quiet console=ttyS0,115200n8"));
        assert!(expected("vmlinux", "earlyprintk=serial"));
        assert!(!expected("vmlinux", "quiet"));
        assert!(!expected("vmlinux", "console=tty0"));
        for directory in ["software-kvm", "software-kvm-22df183c7ff0c34b"] {
            assert!(!expected(
                &format!("/root/.cache/kernels/{directory}/vmlinux"),
                DEFAULT_CMDLINE
            ));
        }
    }

    #[test]
    fn who_stood_still_has_its_time_again() {
        let mut silence = Silence {
            deadline: Some(Instant::now()),
        };
        assert_eq!(silence.due(), Some(Duration::ZERO));
        silence.begin_again();
        assert!(silence.due() > Some(PATIENCE / 2));
        let mut looked_at = Silence { deadline: None };
        looked_at.begin_again();
        assert_eq!(looked_at.due(), None);
    }
}
