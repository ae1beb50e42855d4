//! Quotas as users write them.

use super::*;
use crate::{MemorySize, VmConfig};

#[test]
fn shares_of_cpus_parse_and_print() {
    for (text, milli, printed) in [
        ("0.5", 500, "0.5"),
        ("2", 2000, "2"),
        (" 1.25 ", 1250, "1.25"),
        ("0.01", 10, "0.01"),
        ("254", 254_000, "254"),
    ] {
        let quota: CpuQuota = text.parse().unwrap();
        assert_eq!(
            (quota.milli(), quota.to_string().as_str()),
            (milli, printed)
        );
    }
    for text in [
        "", ".5", "0.", "0.1234", "-1", "+1", "1e3", "half", "0x1", "99999999",
    ] {
        let error = text.parse::<CpuQuota>().unwrap_err().to_string();
        assert!(error.contains("is not a share in CPUs"), "{text}: {error}");
    }
    for text in ["0", "0.009", "254.001"] {
        let error = text.parse::<CpuQuota>().unwrap_err().to_string();
        assert!(
            error.contains(&format!(
                "{text} CPUs is outside the limits of a quota: 0.01 to 254"
            )),
            "{text}: {error}"
        );
    }
    // What the kernel is told, and refuses below 1000.
    assert_eq!(CpuQuota::MIN.period_share_us(), 1000);
    assert_eq!(
        "1.5".parse::<CpuQuota>().unwrap().period_share_us(),
        150_000
    );
}

#[test]
fn weights_have_limits() {
    assert_eq!("100".parse::<CpuWeight>().unwrap().get(), 100);
    for text in ["0", "10001"] {
        let error = text.parse::<CpuWeight>().unwrap_err().to_string();
        assert!(error.contains("1 to 10000"), "{error}");
    }
    assert!("heavy".parse::<CpuWeight>().is_err());
    let weight = |text: &str| CpuWeight::for_quota(text.parse().unwrap()).get();
    assert_eq!(
        (weight("0.01"), weight("0.5"), weight("4")),
        (100, 5000, 10_000)
    );
}

#[test]
fn overcommit_is_two_factors() {
    let both: Overcommit = "cpus=2,memory=1.5".parse().unwrap();
    assert_eq!((both.cpus.milli(), both.memory.milli()), (2000, 1500));
    let one: Overcommit = "memory=0.8".parse().unwrap();
    assert_eq!(
        (one.cpus, one.memory.of(10.gib().bytes())),
        (Factor::default(), 8.gib().bytes())
    );
    for (text, expected) in [
        (
            "cpu=2",
            "an overcommitment has no key `cpu`; did you mean `cpus`?",
        ),
        ("memory=0", "not a factor from 0.001 to 1000"),
        ("memory=1001", "not a factor"),
        ("memory", "needs a value: a factor"),
    ] {
        let error = text.parse::<Overcommit>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert_eq!(Factor(3).of(u64::MAX), u64::MAX / 1000 * 3 + 1);
}

#[test]
fn every_key_of_json_is_read() {
    let config = VmConfig::from_json(
        r#"{"kernel": "k", "vcpus": 2, "cpu_quota": 1.5, "cpuset": "0-1", "cpu_weight": 300,
            "cpu_scope": "vcpus", "cgroup_parent": "/tenants/a", "memory_mode": "reserved",
            "overcommit": {"cpus": 2, "memory": "1.25"}}"#,
    )
    .unwrap();
    assert_eq!(config.quota.cpu.unwrap().milli(), 1500);
    assert_eq!(config.quota.cpus.as_ref().unwrap().to_string(), "0-1");
    assert_eq!(config.quota.weight.unwrap().get(), 300);
    assert_eq!(config.quota.scope, CpuScope::Vcpus);
    assert_eq!(config.quota.memory, Some(MemoryMode::Reserved));
    assert_eq!(config.quota.parent.unwrap().to_string(), "/tenants/a");
    assert!(config.prefault, "reserved memory is taken before the start");
    assert_eq!(config.overcommit.cpus.milli(), 2000);
    assert_eq!(config.overcommit.memory.milli(), 1250);
    let text = VmConfig::from_json(r#"{"kernel": "k", "cpu_quota": "0.25"}"#).unwrap();
    assert_eq!(text.quota.cpu.unwrap().milli(), 250);
}

#[test]
fn what_cannot_be_is_named() {
    for (json, expected) in [
        (
            r#""cpu_quota": 1.5"#,
            "a quota of 1.5 CPUs is more than the vCPUs can use (1)",
        ),
        (
            r#""vcpus": 4, "cpu_quota": 2.5, "cpuset": "0,1""#,
            "more than the CPUs of the set can use (2)",
        ),
        (r#""cpu_quota": 0.001"#, "0.01 to 254"),
        (
            r#""cpu_quota": true"#,
            "a share in CPUs must be a number such as 0.5",
        ),
        (r#""cpuset": "0,0""#, "names a CPU twice"),
        (r#""cpu_weight": 0"#, "1 to 10000"),
        (
            r#""cpu_scope": "threads""#,
            "`threads` is not one of `vm`, `vcpus`",
        ),
        (
            r#""cpu_scope": "vcpus""#,
            "without a CPU quota or a CPU set",
        ),
        (
            r#""cgroup_parent": "tenants""#,
            "`tenants` is not a cgroup: it must begin with `/`",
        ),
        (
            r#""memory_mode": "own""#,
            "`own` is not one of `shared`, `reserved`",
        ),
        (r#""overcommit": {"cpus": 0}"#, "0.001 to 1000"),
        (r#""cpu_qouta": 1"#, "did you mean `cpu_quota`?"),
    ] {
        let json = format!(r#"{{"kernel": "k", {json}}}"#);
        let error = VmConfig::from_json(&json).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn nothing_asked_takes_no_cgroup() {
    let plain = VmConfig::builder().kernel("k").build().unwrap();
    assert!(!plain.quota.is_asked());
    assert_eq!(plain.quota.memory_mode(HugePages::Off), MemoryMode::Shared);
    assert_eq!(
        plain.quota.memory_mode(HugePages::Reserved),
        MemoryMode::Reserved
    );
    let parent = VmConfig::builder()
        .kernel("k")
        .cgroup_parent("/a".parse().unwrap());
    assert!(parent.build().unwrap().quota.is_asked());
    let shared = VmConfig::builder()
        .kernel("k")
        .memory_mode(MemoryMode::Shared);
    let shared = shared.build().unwrap();
    assert!(shared.quota.is_asked() && !shared.prefault);
}
