//! Starts every CPU that the MP table lists, or the MADT with `via=acpi`, and checks that
//! each one runs and knows its APIC id.
//!
//! Prints `cpus=N ids=0,1,...` and ends with 0; any disagreement is printed and ends with 1.
//! `x2apic=1` sends the start-up through x2APIC mode, as APIC ids above 254 demand.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::smp::{self, MAX_STARTED};
use kvmlet_guests::{acpi, cpu, lapic, mp_table, print, println};

kvmlet_guests::program!(run);

/// How long to wait for all CPUs, in TSC ticks: ten seconds at 3 GHz. Interpreted CPUs that
/// share two cores need a good part of one.
const PATIENCE_TICKS: u64 = 30_000_000_000;

fn run(info: &BootInfo) -> u8 {
    let mut listed = [0; MAX_STARTED + 1];
    let listed = match list(info, &mut listed) {
        Ok(count) => &mut listed[..count],
        Err(problem) => {
            println!("no list of CPUs: {problem}");
            return 1;
        }
    };
    if info.number("x2apic") == Some(1) {
        lapic::enable_x2apic();
    }
    let own = lapic::id();
    lapic::enable();
    smp::prepare();
    for id in listed.iter().filter(|id| **id != own) {
        smp::start(*id);
    }
    let start = cpu::tsc();
    while smp::recorded() + 1 < listed.len() && cpu::tsc() - start < PATIENCE_TICKS {
        core::hint::spin_loop();
    }
    report(own, listed)
}

/// Fills in the listed APIC ids; their number.
fn list(info: &BootInfo, ids: &mut [u32]) -> Result<usize, &'static str> {
    match info.option("via") {
        None | Some("mptable") => Ok(fill(ids, mp_table::cpus(mp_table::find()?))),
        Some("acpi") => Ok(fill(ids, acpi::cpus(acpi::find_table(info.rsdp, b"APIC")?))),
        Some(_) => Err("via= must be mptable or acpi"),
    }
}

fn fill(ids: &mut [u32], found: impl Iterator<Item = u32>) -> usize {
    ids.iter_mut()
        .zip(found)
        .map(|(slot, id)| *slot = id)
        .count()
}

fn report(own: u32, listed: &mut [u32]) -> u8 {
    let mut ids = [0; MAX_STARTED + 1];
    let mut agree = true;
    ids[0] = own;
    for (slot, cpu) in ids[1..].iter_mut().zip(smp::started()) {
        *slot = cpu.x2apic_id;
        if cpu.apic_id != cpu.x2apic_id & 0xff {
            println!(
                "CPUID leaf 1 says APIC id {}, leaf 0xB {}",
                cpu.apic_id, cpu.x2apic_id
            );
            agree = false;
        }
    }
    let ids = &mut ids[..=smp::started().len()];
    ids.sort_unstable();
    listed.sort_unstable();
    print!("cpus={} ids=", ids.len());
    for (index, id) in ids.iter().enumerate() {
        print!("{}{id}", if index == 0 { "" } else { "," });
    }
    print!("\n");
    if ids != listed {
        println!("listed, sorted: {listed:?}");
        agree = false;
    }
    u8::from(!agree)
}
