//! What the host's kernel is: its version, and the clock that it reads.

use super::{Finding, ok, warning};
use kvmlet_sys::facts;

/// Versions of Linux from which on there is something, and what is done without it.
const SINCE: [((u32, u32), &str); 5] = [
    (
        (5, 3),
        "VMs run only with --no-jail and without shares (no handles on processes)",
    ),
    (
        (5, 7),
        "VMs join their cgroup after they were made (no CLONE_INTO_CGROUP)",
    ),
    (
        (5, 10),
        "disks are served by system calls (no io_uring with restrictions)",
    ),
    ((5, 13), "VMs are confined without Landlock"),
    (
        (5, 14),
        "--prefault and reserved memory are refused (no MADV_POPULATE_WRITE)",
    ),
];

/// Clock sources that a process reads without a system call.
const READ_BY_VDSO: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];

/// What its version lacks.
pub fn version() -> Finding {
    let have = facts::kernel_version();
    let text = format!("Linux {}.{}", have.0, have.1);
    match lacks(have).as_slice() {
        [] => ok("host kernel", text),
        lacks => warning(
            "host kernel",
            format!("{text}: {}", lacks.join("; ")),
            "use Linux 5.14 or later, which has all that kvmlet makes use of",
        ),
    }
}

fn lacks(have: (u32, u32)) -> Vec<&'static str> {
    let lacking = SINCE.iter().filter(|(since, _)| have < *since);
    lacking.map(|(_, without)| *without).collect()
}

/// What reading the clock costs.
pub fn clock() -> Finding {
    let Some(source) = facts::clock_source() else {
        return warning("clock", "the kernel does not tell its source", "mount /sys");
    };
    match READ_BY_VDSO.contains(&source.as_str()) {
        true => ok("clock", format!("{source}, read without a system call")),
        false => warning(
            "clock",
            format!(
                "{source}: it works, but each look at it is a system call and slow, for guests that use the host's \
                 clock as well"
            ),
            "`dmesg | grep -i -e tsc -e clocksource` says why it is not tsc; where the TSC can be trusted, boot this host \
             with `tsc=reliable`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_depends_on_its_version() {
        assert_eq!(lacks((5, 2)).len(), SINCE.len());
        assert_eq!(lacks((5, 4)).len(), SINCE.len() - 1);
        assert_eq!(lacks((5, 10)), [SINCE[3].1, SINCE[4].1]);
        assert!(lacks((5, 14)).is_empty() && lacks((6, 1)).is_empty());
    }
}
