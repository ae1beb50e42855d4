//! What is described and cannot be.

use super::*;
use serde_json::json;

fn set(machine: &mut Machine, what: &str, body: serde_json::Value) -> Result<(), String> {
    let component = match what {
        "machine" => Component::Machine(serde_json::from_value(body).unwrap()),
        "boot" => Component::Boot(serde_json::from_value(body).unwrap()),
        "drive" => Component::Drive(serde_json::from_value(body).unwrap()),
        "net" => Component::Network(serde_json::from_value(body).unwrap()),
        "vsock" => Component::Vsock(serde_json::from_value(body).unwrap()),
        "balloon" => Component::Balloon(serde_json::from_value(body).unwrap()),
        "entropy" => Component::Entropy(serde_json::from_value(body).unwrap()),
        "serial" => Component::Serial(serde_json::from_value(body).unwrap()),
        "logger" => Component::Logger(serde_json::from_value(body).unwrap()),
        _ => Component::Metrics(serde_json::from_value(body).unwrap()),
    };
    machine.set(component).map_err(|Fault(why)| why)
}

#[test]
fn what_cannot_be_honoured_is_named_and_changes_nothing() {
    let drive = |id: &str, root: bool| json!({ "drive_id": id, "path_on_host": "/dev/null", "is_root_device": root });
    let net =
        |id: &str, tap: &str| json!({ "iface_id": id, "host_dev_name": tap, "guest_mac": null });
    let mut machine = Machine::default();
    set(&mut machine, "drive", drive("root", true)).unwrap();
    set(&mut machine, "net", net("eth0", "tap0")).unwrap();
    set(&mut machine, "metrics", json!({ "metrics_path": "m" })).unwrap();
    let before = machine.clone();
    let bucket = json!({ "size": 1, "one_time_burst": null, "refill_time": 1 });
    for (what, body, part) in [
        (
            "machine",
            json!({ "vcpu_count": 0, "mem_size_mib": 128 }),
            "from 1 to 32",
        ),
        (
            "machine",
            json!({ "vcpu_count": 33, "mem_size_mib": 128 }),
            "from 1 to 32",
        ),
        (
            "machine",
            json!({ "vcpu_count": 1, "mem_size_mib": 0 }),
            "memory size",
        ),
        (
            "machine",
            json!({ "vcpu_count": 1, "mem_size_mib": 1, "smt": true }),
            "smt is not supported: the guest has",
        ),
        (
            "machine",
            json!({ "vcpu_count": 1, "mem_size_mib": 1, "cpu_template": "T2" }),
            "cpu_template `T2` is not",
        ),
        (
            "machine",
            json!({ "vcpu_count": 1, "mem_size_mib": 127, "huge_pages": "2M" }),
            "not a multiple of the page size",
        ),
        (
            "boot",
            json!({ "kernel_image_path": "/nowhere" }),
            "`/nowhere` cannot be opened: No such file",
        ),
        (
            "boot",
            json!({ "kernel_image_path": "/dev/null", "initrd_path": "/nowhere" }),
            "The initrd",
        ),
        (
            "drive",
            drive("other", true),
            "root block device already exists",
        ),
        (
            "drive",
            json!({ "drive_id": "d", "is_root_device": false }),
            "no path_on_host",
        ),
        (
            "drive",
            json!({ "drive_id": "d", "is_root_device": false, "path_on_host": "/nowhere" }),
            "cannot be opened",
        ),
        (
            "drive",
            json!({ "drive_id": "d", "is_root_device": false, "socket": "s" }),
            "socket of a drive",
        ),
        ("net", net("eth1", "tap0"), "`eth0` has that"),
        (
            "net",
            json!({ "iface_id": "eth1", "host_dev_name": "tap1", "mtu": 1400 }),
            "mtu of an interface is not supported: the guest is told the tap's own",
        ),
        (
            "net",
            json!({ "iface_id": "eth1", "host_dev_name": "tap1", "guest_mac": "06:00" }),
            "06:00",
        ),
        ("vsock", json!({ "guest_cid": 2, "uds_path": "v" }), "2"),
        (
            "balloon",
            json!({ "amount_mib": 129, "deflate_on_oom": true }),
            "larger than the memory of 128",
        ),
        (
            "balloon",
            json!({ "amount_mib": 1, "deflate_on_oom": true, "free_page_hinting": true }),
            "hinting",
        ),
        (
            "entropy",
            json!({ "rate_limiter": { "bandwidth": bucket, "ops": null } }),
            "/entropy",
        ),
        ("serial", json!({ "rate_limiter": bucket }), "/serial"),
        ("logger", json!({ "module": "m" }), "/logger"),
        (
            "metrics",
            json!({ "metrics_path": "n" }),
            "initialized already",
        ),
    ] {
        let told = set(&mut machine, what, body.clone()).unwrap_err();
        assert!(told.contains(part), "{body}: {told}");
        assert_eq!(machine, before, "{body}");
    }
    // The same id again is the same thing, anew.
    let mut anew = drive("root", true);
    anew["is_read_only"] = json!(true);
    set(&mut machine, "drive", anew).unwrap();
    assert!(machine.drives.len() == 1 && machine.drives[0].is_read_only);
}

#[test]
fn metadata_are_found_on_interfaces_at_an_address_of_a_link() {
    let mut machine = Machine::default();
    for (id, tap) in [("eth0", "tap0"), ("eth1", "tap1")] {
        let interface = json!({ "iface_id": id, "host_dev_name": tap });
        let interface = serde_json::from_value(interface).unwrap();
        machine.set(Component::Network(interface)).unwrap();
    }
    let mut set = |config: serde_json::Value| {
        let config = serde_json::from_value(config).unwrap();
        let set = machine.set(Component::Mmds(config));
        (set.map_err(|Fault(why)| why), machine.clone())
    };
    for address in ["10.0.0.1", "169.254.0.255", "169.254.255.0", "169.253.1.1"] {
        let config = json!({ "network_interfaces": ["eth0"], "ipv4_address": address });
        let why = set(config).0.unwrap_err();
        assert_eq!(why, "The MMDS IPv4 address is not link local.");
    }
    let why = set(json!({ "network_interfaces": [] })).0.unwrap_err();
    assert!(why.contains("is empty"), "{why}");
    let why = set(json!({ "network_interfaces": ["eth1", "eth2"] })).0;
    assert!(why.unwrap_err().contains("`eth2`, which is no"));
    let (taken, now) = set(json!({ "network_interfaces": ["eth1"] }));
    assert_eq!(taken, Ok(()));
    assert_eq!(now.with_metadata().collect::<Vec<_>>(), [1]);
    assert!(now.has_devices());
    let told = serde_json::to_value(&now).unwrap();
    assert_eq!(told["mmds-config"]["version"], "V1");
    let config = json!({ "network_interfaces": ["eth0", "eth1", "eth0"], "version": "V2" });
    let (_, now) = set(config);
    assert_eq!(now.with_metadata().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        now.mmds_config.unwrap().address().to_string(),
        "169.254.169.254"
    );
}

#[test]
fn a_file_says_no_more_and_no_less_than_requests() {
    let boot = json!({ "kernel_image_path": "/dev/null" });
    let read =
        |file: serde_json::Value| Machine::of_file(&file.to_string()).map_err(|Fault(why)| why);
    assert!(read(json!({ "boot-source": boot })).is_ok());
    for (file, part) in [
        (json!({}), "no `boot-source`"),
        (
            json!({ "boot-source": boot, "boot_source": boot }),
            "unknown field `boot_source`",
        ),
        (
            json!({ "boot-source": boot, "mmds-config": {} }),
            "missing field `network_interfaces`",
        ),
        (
            json!({ "boot-source": boot, "mmds-config": { "network_interfaces": ["eth0"] } }),
            "which is no network interface",
        ),
        (
            json!({ "boot-source": boot, "pmem": [{}] }),
            "pmem is not supported",
        ),
        (
            json!({ "boot-source": { "kernel_image_path": "/nowhere" } }),
            "cannot be opened",
        ),
        (
            json!({ "boot-source": boot, "machine-config": { "vcpu_count": 1 } }),
            "missing field `mem_size_mib`",
        ),
    ] {
        let told = read(file.clone()).unwrap_err();
        assert!(told.contains(part), "{file}: {told}");
    }
}
