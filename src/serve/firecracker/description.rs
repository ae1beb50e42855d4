//! From what a client has described to a VM.

use super::fault::Fault;
use super::machine::Machine;
use super::model::{self, CacheType, Drive, HugePages, IoEngine, NetworkInterface, RateLimiter};
use kvmlet_spec::{
    Balloon, Cache, Disk, DiskIo, JailMode, MemorySize, Net, Rate, RateLimit, Serial, VmConfig,
    Vsock,
};

/// Where nothing is said: without a serial console, which takes a guest long to write to.
const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0";

/// The VM. Its guest is never asked to end by its end alone: whoever wants that asks first.
pub fn describe(machine: &Machine, jail: JailMode) -> Result<VmConfig, Fault> {
    let Some(boot) = &machine.boot_source else {
        return Err(Fault(
            "Cannot start microvm without kernel configuration.".into(),
        ));
    };
    let mut drives: Vec<&Drive> = machine.drives.iter().collect();
    // The guest's root is its first disk.
    drives.sort_by_key(|drive| !drive.is_root_device);
    let words = boot.boot_args.as_deref().unwrap_or(DEFAULT_BOOT_ARGS);
    let root = drives.first().filter(|drive| drive.is_root_device);
    let mut config = VmConfig::builder()
        .kernel(&boot.kernel_image_path)
        .cmdline(root.map_or(words.to_owned(), |root| {
            format!("{words} {}", root_word(root))
        }))
        .vcpus(machine.machine_config.vcpu_count.into())
        .memory(machine.machine_config.mem_size_mib.mib())
        .huge_pages(match machine.machine_config.huge_pages {
            HugePages::None => kvmlet_spec::HugePages::Off,
            HugePages::Transparent => kvmlet_spec::HugePages::Transparent,
            HugePages::Hugetlbfs2M => kvmlet_spec::HugePages::Reserved,
        })
        .rng(machine.entropy.is_some())
        .jail(jail);
    if let Some(path) = &boot.initrd_path {
        config = config.initrd(path);
    }
    for drive in drives {
        config = config.disk(disk(drive)?);
    }
    for interface in &machine.network_interfaces {
        config = config.net(net(interface)?);
    }
    if let Some(vsock) = &machine.vsock {
        config = config.vsock(sockets(vsock)?);
    }
    if let Some(asked) = &machine.balloon {
        let mut balloon = Balloon::default();
        balloon.size = u64::from(asked.amount_mib).mib();
        balloon.deflate_on_oom = asked.deflate_on_oom;
        balloon.reporting = asked.free_page_reporting;
        config = config.balloon(balloon);
    }
    machine.cpus.apply(config)?.build().map_err(wrong)
}

fn root_word(drive: &Drive) -> String {
    let device = match &drive.partuuid {
        Some(id) => format!("PARTUUID={id}"),
        None => "/dev/vda".into(),
    };
    let mode = if drive.is_read_only { "ro" } else { "rw" };
    format!("root={device} {mode}")
}

/// A disk, which the guest knows by its id where that fits.
pub fn disk(drive: &Drive) -> Result<Disk, Fault> {
    let path = drive.path_on_host.clone().unwrap_or_default();
    let mut disk = Disk::read_write(path);
    disk.read_only = drive.is_read_only;
    // Firecracker's `Unsafe` does not offer to flush. Here a guest may, in either case.
    disk.cache = match drive.cache_type {
        CacheType::Unsafe | CacheType::Writeback => Cache::WriteBack,
    };
    disk.io = match drive.io_engine {
        None => DiskIo::Auto,
        Some(IoEngine::Sync) => DiskIo::Sync,
        Some(IoEngine::Async) => DiskIo::IoUring,
    };
    disk.id = Serial::try_from(drive.drive_id.clone()).ok();
    disk.rate_limit = limit(drive.rate_limiter)?;
    Ok(disk)
}

/// An interface, on a tap that is there.
pub fn net(interface: &NetworkInterface) -> Result<Net, Fault> {
    let mut net = Net::default();
    net.tap = Some(interface.host_dev_name.clone());
    if let Some(mac) = &interface.guest_mac {
        net.mac = Some(mac.parse().map_err(wrong)?);
    }
    net.rx = limit(interface.rx_rate_limiter)?;
    net.tx = limit(interface.tx_rate_limiter)?;
    Ok(net)
}

/// Sockets between guest and host.
pub fn sockets(asked: &model::Vsock) -> Result<Vsock, Fault> {
    let mut vsock = Vsock::new(&asked.uds_path);
    vsock.cid = asked.guest_cid.try_into().map_err(wrong)?;
    Ok(vsock)
}

/// A bucket that is full again after some time is a rate. One without a size, or that is full at once, is no limit.
pub fn limit(limiter: Option<RateLimiter>) -> Result<RateLimit, Fault> {
    let rate = |bucket: Option<model::TokenBucket>| {
        let Some(bucket) = bucket.filter(|it| it.size > 0 && it.refill_time > 0) else {
            return Ok(None);
        };
        let per_second = u128::from(bucket.size) * 1000 / u128::from(bucket.refill_time);
        let per_second = u64::try_from(per_second).unwrap_or(u64::MAX).max(1);
        let rate = Rate::per_second(per_second).map_err(wrong)?;
        let once = bucket.one_time_burst.unwrap_or(0);
        Ok(Some(rate.burst(bucket.size).once(once)))
    };
    let limiter = limiter.unwrap_or_default();
    Ok(RateLimit {
        bandwidth: rate(limiter.bandwidth)?,
        operations: rate(limiter.ops)?,
    })
}

fn wrong(error: kvmlet_spec::Error) -> Fault {
    Fault::of(&error)
}
