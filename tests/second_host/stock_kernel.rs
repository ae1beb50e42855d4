//! Debian's stock kernel as a guest: a bzImage of a distribution, which finds its machine by ACPI.

use crate::Test;
use crate::host::Host;
use crate::task::{Output, Running, Task};

pub const TESTS: &[Test] = &[
    ("a_stock_kernel_runs_a_service_on_two_vcpus", service),
    ("a_stock_kernel_finds_its_disks_on_a_pci_bus", disks),
    ("a_stock_kernel_powers_off", power_off),
    ("a_stock_kernel_panics", panic),
    ("a_stock_kernel_reboots_by_each_way", reboots),
    ("a_stock_kernel_hears_the_power_button", power_button),
];

/// Boots it with the minimal root, to which drivers were added that are modules there.
fn boot(host: &Host, flags: &str, command: &str) -> Output {
    boot_with(host, "reboot=k", flags, command)
}

fn boot_with(host: &Host, parameters: &str, flags: &str, command: &str) -> Output {
    let running = start(host, parameters, flags, command);
    running.end_input();
    running.wait()
}

fn start<'a>(host: &'a Host, parameters: &str, flags: &str, command: &str) -> Running<'a> {
    let script = format!(
        ". $REPOSITORY/images/cpio.sh
         drivers=$(echo $(dirname $STOCK)/modules/*/kernel/drivers)
         {{
             cat $HOME/.cache/kvmlet/images/minimal.cpio
             for driver in misc/pvpanic/pvpanic misc/pvpanic/pvpanic-mmio acpi/button input/evdev; do
                 cpio_file $drivers/$driver.ko /${{driver##*/}}.ko 644
             done
             cpio_end
         }} >initrd
         exec kvmlet boot --kernel $STOCK --initrd initrd --memory 256M {flags} \\
             --cmdline 'console=ttyS0 quiet panic=-1 {parameters}' -- {command}"
    );
    host.start(Task::new(["bash", "-euc", &script]).patience(300))
}

fn service(host: &Host) {
    let command = r#"sh -c 'echo cpus=$(nproc); uname -r; ls /sys/firmware/acpi/tables; exit 7'"#;
    let output = boot(host, "--cpus 2", command).ended_with(7);
    for part in ["cpus=2", "-amd64", "APIC", "FACP"] {
        assert!(output.stdout.contains(part), "no {part:?}: {output}");
    }
}

/// As somebody does who has no kernel of kvmlet's: with an initrd of its own modules, and a service's image as its root. Its
/// interface is served by the host's kernel, which interrupts it by messages.
fn disks(host: &Host) {
    let script = r#"initrd=$($REPOSITORY/images/build --print initrd --modules $(dirname $STOCK)/modules/*)
         kvmlet boot --kernel $STOCK --initrd $initrd --memory 256M --pci -p 6379:6379 --net vhost \
             --root $HOME/.cache/kvmlet/images/redis.erofs --scratch changes,size=64M \
             --cmdline 'console=ttyS0 quiet panic=-1' -- redis-server --protected-mode no --save '' &
         vm=$!
         # More than goes into a frame, and more than one.
         text=$(printf '%060000d' 7)
         until exec 3<>/dev/tcp/127.0.0.1/6379 && printf 'PING\r\n' >&3 && read -t 20 -u 3 line; do
             kill -0 $vm
             sleep 1
         done 2>/dev/null
         for round in 1 2 3; do
             printf 'SET key%s %s\r\nGET key%s\r\n' $round $text $round >&3
             read -t 60 -u 3 line
             read -t 60 -u 3 line
             read -t 60 -u 3 line
             [ "${line%?}" = $text ] && echo round $round is right
         done
         printf 'SHUTDOWN\r\n' >&3
         wait $vm"#;
    let running = host.start(Task::new(["bash", "-euc", script]).patience(300));
    running.end_input();
    let output = running.wait().ended_with(0);
    assert!(
        output.stdout.contains("Ready to accept connections"),
        "{output}"
    );
    assert!(output.stdout.contains("round 3 is right"), "{output}");
    assert!(!output.stdout.contains("cannot load"), "{output}");
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

/// As on a machine of one's own: a daemon hears the button by its driver's input device, and powers off.
fn power_button(host: &Host) {
    let command = r##"sh -c '
        insmod /button.ko; insmod /evdev.ko
        mkdir -p /etc/acpi/PWRF
        printf "#!/bin/sh\necho the button was pressed >/dev/console\npoweroff\n" >/etc/acpi/PWRF/00000080
        chmod 755 /etc/acpi/PWRF/00000080
        ls /dev/input
        exec acpid -d'"##;
    let mut vm = start(host, "reboot=k", "--stop-timeout 60", command);
    vm.until("event0");
    vm.signal(libc::SIGTERM);
    let output = vm.wait().ended_with(0);
    assert!(output.stdout.contains("the button was pressed"), "{output}");
}
