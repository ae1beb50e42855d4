//! What is read as a configuration, written, and read again is the same.

use crate::*;
use kvmlet_contract::User;
use proptest::option;
use proptest::prelude::*;
use std::fmt::Write;

/// Keys of the text form of a device, each of which may stand there.
fn keys(known: &'static [(&'static str, &'static str)]) -> impl Strategy<Value = String> {
    let key = |&(key, pattern): &'static (&str, &str)| {
        option::of(pattern.prop_map(move |value| format!("{key}={value}")))
    };
    let all: Vec<_> = known.iter().map(key).collect();
    all.prop_map(|all| all.into_iter().flatten().collect::<Vec<_>>().join(","))
}

/// Rates stand first, for what goes with them not to be alone as a rule.
const RATES: [(&str, &str); 3] = [
    ("bandwidth", "[1-9][0-9]{0,3}[KM]?"),
    ("burst", "[0-9]{1,4}K?"),
    ("once", "[0-9]{1,3}"),
];

const DISK: &[(&str, &str)] = &[
    ("ro", "on|off"),
    ("direct", "on|off"),
    ("cache", "writeback|writethrough"),
    ("format", "raw"),
    ("id", "[!-+.-~]{1,20}"),
    ("queues", "[1-9]"),
    ("io", "auto|io_uring|sync"),
    ("iops", "[1-9][0-9]{0,5}"),
    RATES[0],
    RATES[1],
    RATES[2],
];

const NET: &[(&str, &str)] = &[
    ("mac", "02(:[0-9a-f]{2}){5}"),
    ("mtu", "[1-9][0-9]{2}"),
    ("queues", "[1-8]"),
    ("subnet", "10\\.[1-9]\\.[1-9]\\.0/30"),
    ("egress", "none|internet|all"),
    ("rx-packets", "[1-9][0-9]{0,5}"),
    ("rx-packets-once", "[0-9]"),
    ("tx-bandwidth", "[1-9][0-9]{0,3}[KM]?"),
];

const BALLOON: &[(&str, &str)] = &[
    ("size", "[0-9]{1,2}M|4096"),
    ("deflate-on-oom", "on|off"),
    ("reporting", "on|off"),
];

const PORT: &str = "((127\\.0\\.0\\.1|\\[::1\\]|localhost):([0-9]{2}0[1-9])?:|[1-9]{2}0[1-9]:|1[0-9]{3}-2[0-9]{3}:)?[1-9][0-9]{0,3}(/udp)?";

/// What is taken from text, as a command line has it.
fn devices() -> impl Strategy<Value = VmConfigBuilder> {
    let disks = prop::collection::vec(("[a-z/., \"\\\\é]{1,9}", keys(DISK)), 0..3);
    let nets = prop::collection::vec(keys(NET), 0..3);
    let ports = prop::collection::vec(PORT, 0..4);
    let servers = prop::collection::vec("9\\.9\\.9\\.[1-9]|2620:fe::[1-9a-f]", 0..3);
    let balloon = option::of(keys(BALLOON));
    let vsock = option::of("[a-z/.]{1,9}[a-z](,cid=[1-9][0-9]{1,8})?");
    let parts = (disks, nets, ports, servers, balloon, vsock);
    parts.prop_filter_map("devices that cannot be", |parts| {
        let (disks, nets, ports, servers, balloon, vsock) = parts;
        let mut config = VmConfig::builder().kernel("k");
        for (path, keys) in disks {
            let disk = format!("path=d,{keys}").trim_end_matches(',').parse();
            config = config.disk(Disk {
                source: path.into(),
                ..disk.ok()?
            });
        }
        for net in nets {
            config = config.net(net.parse().ok()?);
        }
        for port in ports {
            config = config.publish(port.parse().ok()?);
        }
        for server in servers {
            config = config.dns(server.parse().ok()?);
        }
        if let Some(vsock) = vsock {
            config = config.vsock(vsock.parse().ok()?);
        }
        Some(match balloon {
            Some(balloon) => config.balloon(balloon.parse().ok()?),
            None => config,
        })
    })
}

/// What the host gives, and what the guest is told.
fn shares(config: VmConfigBuilder) -> impl Strategy<Value = VmConfigBuilder> {
    let share = (
        option::of(20u32..=1000),
        option::of("[0-9]|[1-4]-[5-9],12"),
        option::of(1u64..=10_000),
        option::of("/[a-z]{1,3}"),
        option::of((1u32..=9999, 1u32..=9999)),
        any::<[bool; 5]>(),
    );
    share.prop_map(move |(quota, cpus, weight, parent, factors, on)| {
        let mut config = config
            .clone()
            .pmu(on[0])
            .rng(on[1])
            .poll(on[2])
            .best_effort(on[2])
            .pci(on[4])
            .cpuid("7.1:ebx=0b1x0".parse().unwrap())
            .msr("0x10a=0b1xx0".parse().unwrap());
        config.cpu_quota = quota.and_then(|milli| CpuQuota::from_milli(milli).ok());
        config.cpuset = cpus.and_then(|text| text.parse().ok());
        config.cpu_weight = weight.and_then(|weight| weight.try_into().ok());
        config.cgroup_parent = parent.and_then(|text| text.parse().ok());
        if let Some((cpus, memory)) = factors {
            let text = |milli: u32| thousandths(milli.into());
            let text = format!("cpus={},memory={}", text(cpus), text(memory));
            config = config.overcommit(text.parse().unwrap());
        }
        match on[3] {
            true => config.jail(JailMode::Required).stats("s.json"),
            false => config.memory_mode(MemoryMode::Shared),
        }
    })
}

fn guests(config: VmConfigBuilder) -> impl Strategy<Value = VmConfigBuilder> {
    let guest = (
        (16u64..200, 1u64..9),
        prop::collection::vec("[ -~é]{1,6}", 0..3),
        prop::collection::vec(("[A-Z]{1,3}", any::<String>()), 0..3),
        option::of("/[ -~]{0,6}"),
        option::of("[a-z]{1,8}"),
        option::of(0u32..100),
        (
            option::of("[a-z]{1,3}\\.erofs"),
            option::of(2u64..100),
            any::<bool>(),
        ),
    );
    guest.prop_map(
        move |((memory, vcpus), command, env, workdir, name, timeout, root)| {
            let mut config = config.clone().command(command).vcpus(vcpus);
            config = config.memory(memory.mib());
            for (name, value) in env {
                config = config.env(name, value.replace('\0', ""));
            }
            config.workdir = workdir;
            config.hostname = name;
            config.stop_timeout = timeout;
            if let (Some(root), scratch, kept) = root {
                config = config.root(root);
                if kept {
                    config = config.scratch("scratch.ext4");
                    config.scratch_size = scratch.map(|mib| mib.mib());
                }
            }
            config
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(
        config in devices().prop_flat_map(shares).prop_flat_map(guests)
            .prop_filter_map("a configuration that cannot be", |config| config.build().ok())
    ) {
        let json = config.to_json().unwrap();
        let read = VmConfig::from_json(&json).unwrap();
        prop_assert_eq!(&read, &config, "{}", json);
        prop_assert_eq!(read.to_json().unwrap(), json);
    }
}

#[test]
fn what_is_written_is_what_people_write() {
    let config = VmConfig::builder()
        .kernel("vmlinux")
        .cpu_quota("0.5".parse().unwrap())
        .disk("d,iops=100,burst=1,bandwidth=3M".parse().unwrap())
        .publish("localhost:8080:80".parse().unwrap());
    let json = config.build().unwrap().to_json().unwrap();
    let mut expected = r#"{"kernel":"vmlinux","cmdline":"console=ttyS0 reboot=k panic=-1 quiet","memory":"128M","huge_pages":"off","prefault":false,"vcpus":1,"cpu_mask":[],"nested":false,"pmu":false,"pci":false,"cpu_quota":0.5,"cpu_scope":"vm","#.to_string();
    write!(expected, r#""overcommit":{{"cpus":1,"memory":1}},"read_only":false,"disks":[{{"path":"d","read_only":false,"direct":false,"cache":"writeback","queues":1,"io":"auto","rate_limit":{{"bandwidth":"3M","burst":1,"operations":100,"operations_burst":10}}}}],"nets":[{{"queues":1,"publish":["localhost:8080:80/tcp"]}}],"rng":true,"poll":true,"jail":"auto","best_effort":false}}"#).unwrap();
    assert_eq!(json, expected);
}

#[test]
fn what_no_key_says_is_refused() {
    let config = || {
        VmConfig::builder()
            .kernel("k")
            .root("r")
            .scratch("s")
            .build()
            .unwrap()
    };
    config().to_json().unwrap();
    let with = |change: fn(&mut VmConfig)| {
        let mut config = config();
        change(&mut config);
        config.to_json().map_err(|error| error.to_string())
    };
    // The size of a terminal is of one run.
    let terminal = ConsoleSize {
        columns: 80,
        rows: 25,
    };
    let mut shown = config();
    shown.guest.console = Some(terminal);
    assert_eq!(shown.to_json().ok(), config().to_json().ok());
    let changes: [fn(&mut VmConfig); 3] = [
        |config| config.guest.service.user = Some(User::ROOT),
        |config| drop(config.disks.pop()),
        |config| config.disks[1].read_only = true,
    ];
    for change in changes {
        let error = with(change).unwrap_err();
        assert!(error.contains("no key"), "{error}");
    }
    let error = with(|config| {
        use std::os::unix::ffi::OsStringExt;
        config.kernel = std::ffi::OsString::from_vec(vec![0xff]).into();
    });
    assert!(error.unwrap_err().contains("not UTF-8"));
}
