//! Debian's stock kernel as a guest: a bzImage of a distribution, which finds its machine by ACPI.

use crate::Test;
use crate::host::Host;
use crate::task::{Output, Task};

pub const TESTS: &[Test] = &[
    ("a_stock_kernel_runs_a_service_on_two_vcpus", service),
    ("a_stock_kernel_powers_off", power_off),
    ("a_stock_kernel_panics", panic),
    ("a_stock_kernel_reboots_by_each_way", reboots),
];

/// Boots it with the minimal root, to which the driver of the panic device was added: it is a module there.
fn boot(host: &Host, flags: &str, command: &str) -> Output {
    boot_with(host, "reboot=k", flags, command)
}

fn boot_with(host: &Host, parameters: &str, flags: &str, command: &str) -> Output {
    let script = format!(
        ". $REPOSITORY/images/cpio.sh
         modules=$(dirname $STOCK)/modules/*/kernel/drivers/misc/pvpanic
         {{
             cat $HOME/.cache/kvmlet/images/minimal.cpio
             for module in pvpanic pvpanic-mmio; do cpio_file $modules/$module.ko /$module.ko 644; done
             cpio_end
         }} >initrd
         for try in 1 2 3; do
             code=0
             timeout -k 20 75 kvmlet boot --kernel $STOCK --initrd initrd --memory 256M {flags} \\
                 --cmdline 'console=ttyS0 quiet panic=-1 {parameters}' -- {command} || code=$?
             # A guest of this host hangs now and then on its way up, as in `services`.
             [ $code = 124 ] || break
             echo hung >&2
         done
         exit $code"
    );
    let output = host.run(Task::new(["bash", "-euc", &script]).patience(300));
    for _ in output.stderr.lines().filter(|line| *line == "hung") {
        println!("a stock kernel did not end within 75 s, and had another try");
    }
    output
}

fn service(host: &Host) {
    let command = r#"sh -c 'echo cpus=$(nproc); uname -r; ls /sys/firmware/acpi/tables; exit 7'"#;
    let output = boot(host, "--cpus 2", command).ended_with(7);
    for part in ["cpus=2", "-amd64", "APIC", "FACP"] {
        assert!(output.stdout.contains(part), "no {part:?}: {output}");
    }
}

fn power_off(host: &Host) {
    boot(host, "", "poweroff -f").ended_with(0);
}

fn panic(host: &Host) {
    let command =
        "sh -c 'insmod /pvpanic.ko; insmod /pvpanic-mmio.ko; echo c >/proc/sysrq-trigger'";
    boot(host, "", command).ended_with(134);
}

/// By the keyboard controller, by the reset register that ACPI names, and by a triple fault: each of them is a reset.
fn reboots(host: &Host) {
    for (way, code) in [("k", 129), ("a", 129), ("t", 139)] {
        let output = boot_with(host, &format!("reboot={way}"), "", "reboot -f");
        assert_eq!(output.code(), code, "reboot={way}: {output}");
    }
}
