//! What KVM and memory offer.

use super::{Finding, error, ok, warning};
use kvm_ioctls::{Cap, Kvm};
use kvmlet_host::total_memory_bytes;
use kvmlet_spec::{Memory, VcpuCount};
use kvmlet_sys::facts::{self, ReservedPages};
use kvmlet_sys::kvm::{self, Execution};

/// The device, what executes guest kernels, and what the device can do.
pub fn kvm() -> Vec<Finding> {
    match kvm::open() {
        Ok(kvm) => {
            let mut findings = vec![
                ok("kvm", format!("{} can be used", kvm::DEVICE)),
                execution(),
            ];
            findings.extend(capabilities(&kvm));
            findings
        }
        Err(cause) => vec![error("kvm", cause.to_string(), cause.help())],
    }
}

fn execution() -> Finding {
    match Execution::detect() {
        Ok(Execution::Hardware) => ok(
            "execution",
            "guest kernels run on the processor (VT-x or SVM)",
        ),
        Ok(Execution::Interpreted) => warning(
            "execution",
            "guest kernel code is interpreted, about a thousand times slower than on hardware",
            "boot times here say nothing about other hosts; a kernel of the `software-kvm` flavour is needed, by `kernels/build` of this version: \
             earlier ones mix up AVX registers of a guest's processes",
        ),
        Err(cause) => warning(
            "execution",
            format!("cannot read /proc/cpuinfo: {cause}"),
            "mount /proc",
        ),
    }
}

fn capabilities(kvm: &Kvm) -> Vec<Finding> {
    const NEEDED: [(&str, Cap); 5] = [
        ("split irqchip", Cap::SplitIrqchip),
        ("irqfd", Cap::Irqfd),
        ("ioeventfd", Cap::Ioeventfd),
        ("immediate exit", Cap::ImmediateExit),
        ("user memory", Cap::UserMemory),
    ];
    const WELCOME: [(&str, Cap); 2] = [
        ("TSC deadline timer", Cap::TscDeadlineTimer),
        ("signal MSI", Cap::SignalMsi),
    ];
    let missing = |list: &[(&'static str, Cap)]| {
        let names = list
            .iter()
            .filter(|(_, cap)| !kvm.check_extension(*cap))
            .map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let mut findings = vec![match missing(&NEEDED).as_str() {
        "" => ok("capabilities", "KVM has all that is needed"),
        names => error(
            "capabilities",
            format!("KVM lacks {names}"),
            "use a host kernel from 4.12 on",
        ),
    }];
    match missing(&WELCOME).as_str() {
        "" => {}
        names => findings.push(warning(
            "capabilities",
            format!("KVM lacks {names}"),
            "guests fall back to slower timers or interrupts",
        )),
    }
    findings.push(ok(
        "vcpus",
        format!(
            "up to {} in a VM",
            kvm.get_max_vcpus().min(VcpuCount::MAX.into())
        ),
    ));
    findings
}

/// How much there is, and in which pages.
pub fn memory() -> Vec<Finding> {
    let all = Memory::from_bytes(total_memory_bytes() >> 20 << 20);
    vec![ok("memory", format!("{all} in all")), huge_pages()]
}

fn huge_pages() -> Finding {
    let ReservedPages { total, free } = ReservedPages::read();
    let transparent = facts::transparent_huge_pages().unwrap_or_else(|| "not there".into());
    let text = format!("reserved: {free} of {total} free (2 MiB each); transparent: {transparent}");
    if total == 0 && transparent == "never" {
        let help = "reserve some with `sysctl vm.nr_hugepages=N`, or allow transparent ones: \
                    `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`";
        return warning("huge pages", text, help);
    }
    ok("huge pages", text)
}
