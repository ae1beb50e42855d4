//! What changes of a VM while its guest runs: what it is asked for, and how it is described then.

use super::description::limit;
use super::fault::Fault;
use super::machine::Machine;
use super::model::{BalloonPatch, Drive, DrivePatch, NetworkPatch, RateLimiter};
use kvmlet_control::{Limited, Order};
use kvmlet_spec::Stats;
use serde_json::{Map, Value, json};

type Change = (Vec<Order>, Machine);

/// The balloon is to have another size.
pub fn balloon(machine: &Machine, patch: BalloonPatch) -> Result<Change, Fault> {
    let mut machine = machine.clone();
    let balloon = machine.balloon.as_mut();
    let balloon = balloon.ok_or_else(|| Fault("No balloon device was found.".into()))?;
    balloon.amount_mib = patch.amount_mib;
    let mib = patch.amount_mib;
    Ok((vec![Order::Balloon { mib }], machine))
}

/// A drive has other limits, or its file another size.
pub fn drive(machine: &Machine, patch: &DrivePatch) -> Result<Change, Fault> {
    let mut machine = machine.clone();
    let id = &patch.drive_id;
    // As the guest counts them: its root is the first.
    let mut order: Vec<&mut Drive> = machine.drives.iter_mut().collect();
    order.sort_by_key(|drive| !drive.is_root_device);
    let mut places = order.into_iter().zip(0u8..);
    let found = places.find(|(drive, _)| drive.drive_id == *id);
    let (drive, disk) = found.ok_or_else(|| Fault(format!("There is no drive `{id}`.")))?;
    let mut orders = Vec::new();
    if let Some(change) = patch.rate_limiter {
        drive.rate_limiter = merged(drive.rate_limiter, change);
        orders.push(Order::Limit {
            device: Limited::Disk(disk),
            limit: limit(drive.rate_limiter)?,
        });
    }
    match &patch.path_on_host {
        Some(path) if drive.path_on_host.as_ref() != Some(path) => {
            return Err(Fault::unsupported(
                "another path_on_host",
                "the VM's process opens no file once its guest runs; the same path has the guest told of the file's new size",
            ));
        }
        Some(_) => orders.push(Order::Resize { disk }),
        None => {}
    }
    Ok((orders, machine))
}

/// An interface has other limits.
pub fn interface(machine: &Machine, patch: &NetworkPatch) -> Result<Change, Fault> {
    let mut machine = machine.clone();
    let id = &patch.iface_id;
    let mut places = machine.network_interfaces.iter_mut().zip(0u8..);
    let found = places.find(|(interface, _)| interface.iface_id == *id);
    let (interface, place) =
        found.ok_or_else(|| Fault(format!("There is no interface `{id}`.")))?;
    let mut orders = Vec::new();
    for (change, limiter, device) in [
        (
            patch.rx_rate_limiter,
            &mut interface.rx_rate_limiter,
            Limited::Receive(place),
        ),
        (
            patch.tx_rate_limiter,
            &mut interface.tx_rate_limiter,
            Limited::Transmit(place),
        ),
    ] {
        if let Some(change) = change {
            *limiter = merged(*limiter, change);
            let limit = limit(*limiter)?;
            orders.push(Order::Limit { device, limit });
        }
    }
    Ok((orders, machine))
}

/// A bucket that is not said stays.
fn merged(known: Option<RateLimiter>, change: RateLimiter) -> Option<RateLimiter> {
    let known = known.unwrap_or_default();
    Some(RateLimiter {
        bandwidth: change.bandwidth.or(known.bandwidth),
        ops: change.ops.or(known.ops),
    })
}

/// Are there statistics of a balloon?
pub fn statistics(machine: &Machine) -> Result<(), Fault> {
    match machine.balloon {
        None => Err(Fault("No balloon device was found.".into())),
        Some(balloon) if balloon.stats_polling_interval_s == 0 => Err(Fault(
            "Statistics of the balloon are not enabled (stats_polling_interval_s).".into(),
        )),
        Some(_) => Ok(()),
    }
}

/// What a VM has told of its balloon and of its guest's memory.
pub fn told(stats: Option<&Stats>) -> Result<String, Fault> {
    const PAGE: u64 = 4096;
    const MIB: u64 = 1 << 20;
    let balloon = stats.and_then(|stats| stats.vm.balloon.as_ref());
    let balloon = balloon.ok_or_else(|| Fault("The microVM has told no statistics.".into()))?;
    let mut all = Map::new();
    let (target, actual) = (balloon.target_bytes, balloon.actual_bytes);
    all.insert("target_pages".into(), json!(target / PAGE));
    all.insert("actual_pages".into(), json!(actual / PAGE));
    all.insert("target_mib".into(), json!(target / MIB));
    all.insert("actual_mib".into(), json!(actual / MIB));
    let guest = balloon.guest.unwrap_or_default();
    for (name, value) in [
        ("swap_in", guest.swapped_in_bytes),
        ("swap_out", guest.swapped_out_bytes),
        ("major_faults", guest.major_faults),
        ("minor_faults", guest.minor_faults),
        ("free_memory", guest.free_bytes),
        ("total_memory", guest.total_bytes),
        ("available_memory", guest.available_bytes),
        ("disk_caches", guest.cache_bytes),
        ("hugetlb_allocations", guest.huge_pages_reserved),
        ("hugetlb_failures", guest.huge_pages_failed),
        ("oom_kill", guest.oom_kills),
        ("alloc_stall", guest.allocation_stalls),
        ("async_scan", guest.scanned_in_background_bytes),
        ("direct_scan", guest.scanned_directly_bytes),
        ("async_reclaim", guest.reclaimed_in_background_bytes),
        ("direct_reclaim", guest.reclaimed_directly_bytes),
    ] {
        // What a guest does not know is left out.
        if let Some(value) = value {
            all.insert(name.into(), json!(value));
        }
    }
    Ok(Value::Object(all).to_string())
}
