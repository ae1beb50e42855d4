//! What a guest kernel is told: by kvmlet, by its user, and for the guest's init.

use crate::arch::x86_64::acpi::MmioSlot;
use crate::arch::x86_64::boot::CommandLine;
use crate::config::{Balloon, HugePages, VmConfig};

/// How free page reporting works, what the user gave, which may overrule that, what kernels without ACPI need
/// to find devices (Linux drivers/virtio/virtio_mmio.c, `virtio_mmio.device=`), and what the guest's init is
/// told.
pub(super) fn compose(config: &VmConfig, slots: &[MmioSlot]) -> CommandLine {
    let mut line = CommandLine::default();
    line.word("balloon", &reporting_order(config));
    line.user_text("cmdline", &config.cmdline);
    for MmioSlot {
        address,
        bytes,
        irq,
    } in slots
    {
        let device = format!("virtio_mmio.device={}K@{address:#x}:{irq}", bytes >> 10);
        line.word("devices", &device);
    }
    for word in config.guest.to_cmdline().split(' ') {
        let (what, name) = asked_for(word);
        line.named_word(what, name, word);
    }
    line
}

/// What one of init's parameters was made of, by its name in the configuration, and the name that it has there.
fn asked_for(word: &str) -> (&'static str, Option<&str>) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "kvmlet.arg" => ("command", None),
        "kvmlet.env" => ("env", value.split('=').next()),
        "kvmlet.net" => ("nets", None),
        "kvmlet.root" | "kvmlet.overlay" => ("root", None),
        "kvmlet.workdir" => ("workdir", None),
        "kvmlet.hostname" => ("hostname", None),
        _ => ("init", None),
    }
}

/// In which blocks a Linux guest reports free memory, 2^N pages each (mm/page_reporting.c). Its default is
/// 2 or 4 MiB, and it reports only while 32 blocks are free: small guests never would. So 128 KiB, unless
/// that would tear the host's huge pages apart.
fn reporting_order(config: &VmConfig) -> String {
    let order = match (config.balloon, config.huge_pages) {
        (
            Some(Balloon {
                reporting: true, ..
            }),
            HugePages::Off,
        ) => 5,
        (
            Some(Balloon {
                reporting: true, ..
            }),
            _,
        ) => 9,
        _ => return String::new(),
    };
    format!("page_reporting.page_reporting_order={order}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::boot;

    #[test]
    fn words_of_init_are_told_apart() {
        let config = VmConfig::builder().kernel("k").cmdline("quiet -- foo");
        let config = config.root("r").command(["sh", "-c", "a b"]);
        let config = config.env("A", "1").env("BIG", "x".repeat(3000)).build();
        let line = compose(&config.unwrap(), &[]);
        let error = line.fit(2047).unwrap_err();
        let help = error.help();
        let boot::Error::CmdlineTooLong { shares, .. } = error else {
            panic!("{error}");
        };
        let names: Vec<_> = shares.iter().map(|share| share.what).collect();
        assert_eq!(names, ["env", "command", "root", "cmdline"]);
        assert_eq!(shares[0].longest.as_ref().unwrap().0, "BIG");
        assert!(help.unwrap().to_string().contains("a file of the image"));
    }
}
