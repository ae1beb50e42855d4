//! An instance as it is told to another host: what was asked of it, without whatever is this host's.

use crate::Failed;
use crate::boot::with_agent;
use crate::ports::leave_to_host;
use crate::service::RootHere;
use kvmlet_host::state::built;
use kvmlet_image::{Digest, Digesting};
use kvmlet_manager::{Asked, InstanceId, Kept, Mount, Name, Service, Text};
use kvmlet_spec::supervision::{HealthCheck, RestartPolicy};
use kvmlet_spec::{VmConfig, VmConfigBuilder};
use kvmlet_sys::{regular, standard_error};
use kvmlet_vmm::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Keys of a machine that mean the same everywhere. (What is in none of these lists keeps an instance where it is.)
const EVERYWHERE: &[&str] = &[
    "vcpus",
    "cmdline",
    "memory",
    "cpu_mask",
    "pmu",
    "cpu_quota",
    "cpu_weight",
    "rng",
    "poll",
    "balloon",
    "nets",
    "dns",
    "hostname",
    "stop_timeout",
    "read_only",
];
/// Those that each host has of its own.
const HERE: &[&str] = &[
    "kernel",
    "huge_pages",
    "prefault",
    "initrd",
    "root",
    "cpuset",
    "cpu_scope",
    "cgroup_parent",
    "overcommit",
    "memory_mode",
    "best_effort",
    "jail",
];
const OF_NETS: &[&str] = &["publish", "egress", "mac", "mtu", "queues", "rx", "tx"];
const OF_NETS_HERE: &[&str] = &["subnet", "backend"];

/// What is said of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Described {
    /// What it was called.
    pub name: Option<Name>,
    /// Its image, as its user has named it.
    pub image: String,
    /// That image in the store.
    pub image_id: Option<String>,
    /// The digest of its root, if that was a file.
    pub root: Option<Digest>,
    /// Whether its kernel was none of kvmlet's.
    pub own_kernel: bool,
    /// What was asked of it, if another host has that.
    pub asked: Option<Portable>,
    /// Why not, if it cannot.
    pub bound_by: Option<String>,
}

/// What was asked of an instance, without what is a host's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Portable {
    command: Vec<Text>,
    /// Its host name is none if it was its id.
    service: Service,
    config: Value,
    restart: RestartPolicy,
    health: Option<HealthCheck>,
    labels: BTreeMap<String, String>,
}

impl Described {
    /// The instance that a snapshot is of.
    pub fn of(kept: &Kept) -> Result<Self, Failed> {
        let asked = &kept.asked;
        let kernel = asked.config["kernel"].as_str().map(Path::new);
        let mut described = Self {
            name: kept.name.clone(),
            image: asked.image_name().into(),
            image_id: asked.image_id.clone(),
            root: None,
            own_kernel: kernel.is_some_and(|kernel| kernel != built::kernel()),
            asked: None,
            bound_by: None,
        };
        match Portable::of(asked) {
            Ok(portable) => described.asked = Some(portable),
            Err(bound) => described.bound_by = Some(bound),
        }
        if let (None, Some(root), true) = (
            &asked.image_id,
            asked.config["root"].as_str(),
            described.asked.is_some(),
        ) {
            described.root = Some(digest(Path::new(root))?);
        }
        Ok(described)
    }
}

impl Portable {
    /// Of that, or what keeps it on its host.
    fn of(asked: &Asked) -> Result<Self, String> {
        let mut config = asked.config.clone();
        let mut service = asked.service.clone();
        if service.hostname.as_deref() == Some(asked.id.short()) {
            service.hostname = None;
        }
        if config["hostname"] == asked.id.short()
            && let Some(config) = config.as_object_mut()
        {
            config.remove("hostname");
        }
        drop_keys(&mut config, HERE);
        let nets = config.get_mut("nets").and_then(Value::as_array_mut);
        for net in nets.into_iter().flatten() {
            drop_keys(net, OF_NETS_HERE);
        }
        leave_to_host(&mut config);
        let portable = Self {
            command: asked.command.clone(),
            service,
            config,
            restart: asked.restart,
            health: asked.health.clone(),
            labels: asked.labels.clone(),
        };
        portable.check()?;
        Ok(portable)
    }

    /// Looks that nothing in it is of a host.
    fn check(&self) -> Result<(), String> {
        for mount in &self.service.mounts {
            match mount {
                Mount::Tmpfs { .. } | Mount::Shm { .. } => {}
                other => return Err(format!("what is mounted at `{}`", other.target())),
            }
        }
        only(&self.config, EVERYWHERE)?;
        let nets = self.config.get("nets").and_then(Value::as_array);
        nets.into_iter()
            .flatten()
            .try_for_each(|net| only(net, OF_NETS))
    }

    /// Who has made an archive does not decide that a guest reaches this host's private networks.
    fn reach_no_more(&mut self) {
        let nets = self.config.get_mut("nets").and_then(Value::as_array_mut);
        for net in nets.into_iter().flatten() {
            if net["egress"] == "all" {
                drop_keys(net, &["egress"]);
                standard_error::say(format_args!(
                    "kvmlet: the instance reached private networks where it comes from; here it reaches the Internet alone"
                ));
            }
        }
    }

    /// The same, asked of an instance on this host, whose kernel and root are these.
    pub fn here(
        mut self,
        of: &Described,
        kernel: Option<PathBuf>,
        root: &RootHere,
    ) -> Result<Asked, Failed> {
        // It comes from anybody.
        self.check().map_err(|bound| {
            Failed::new(format!("the archive says what is another host's: {bound}"))
        })?;
        leave_to_host(&mut self.config);
        self.reach_no_more();
        let id = InstanceId::random().map_err(Failed::new)?;
        let name = self
            .service
            .hostname
            .get_or_insert_with(|| id.short().into());
        let config = VmConfigBuilder::from_json(&self.config.to_string()).map_err(Error::from)?;
        let mut config = config.root(root.source.clone()).hostname(name.clone());
        if let Some(kernel) = kernel {
            config = config.kernel(std::path::absolute(kernel).map_err(Failed::new)?);
        }
        let config: VmConfig = with_agent(config)?.build().map_err(Error::from)?;
        let mut asked = Asked::new(id, of.image.clone());
        asked.image_id = root.image_id.clone();
        asked.command = self.command;
        asked.service = self.service;
        asked.config =
            serde_json::from_str(&config.to_json().map_err(Error::from)?).map_err(Failed::new)?;
        asked.restart = self.restart;
        asked.health = self.health;
        asked.labels = self.labels;
        Ok(asked)
    }
}

fn drop_keys(value: &mut Value, keys: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// Looks that nothing else is said; what is empty or not set says nothing.
fn only(value: &Value, keys: &[&str]) -> Result<(), String> {
    let object = value.as_object().ok_or("its settings")?;
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(all) => !all.is_empty(),
        _ => true,
    };
    let other = object
        .iter()
        .find(|(key, value)| !keys.contains(&key.as_str()) && says(value));
    match other {
        None => Ok(()),
        Some((key, _)) if key == "disks" => Err("its disks".into()),
        Some((key, _)) => Err(format!("its `{key}`")),
    }
}

/// The digest of a file.
pub(super) fn digest(path: &Path) -> Result<Digest, Failed> {
    let mut digest = Digesting::default();
    let read = regular::open(path).and_then(|mut file| io::copy(&mut file, &mut digest));
    read.map_err(|error| Failed::in_vain(format!("cannot read `{}`", path.display()), error))?;
    Ok(digest.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked() -> Asked {
        let mut asked = Asked::new(InstanceId::random().unwrap(), "nginx");
        asked.service.hostname = Some(asked.id.short().into());
        asked.config = json!({
            "kernel": "/k", "initrd": "/i", "root": "/r", "hostname": asked.id.short(), "memory": "64 MiB",
            "disks": [], "cmdline": "quiet", "huge_pages": "off", "nets": [{"publish": ["127.0.0.1:8080:80"], "subnet": "10.1.2.0/30"}], "cpuset": "1",
        });
        asked
    }

    #[test]
    fn nothing_of_a_host_is_told() {
        let asked = asked();
        let portable = Portable::of(&asked).unwrap();
        let told = serde_json::to_string(&portable).unwrap();
        for of_host in [
            "/k",
            "/i",
            "/r",
            asked.id.short(),
            "10.1.2.0",
            "8080",
            "cpuset",
        ] {
            assert!(!told.contains(of_host), "{of_host}: {told}");
        }
        assert_eq!(portable.config["memory"], "64 MiB");
        assert_eq!(portable.service.hostname, None);
        // Nothing that was not said is said now.
        let mut without = self::asked();
        without.config = json!({"memory": "64 MiB"});
        assert_eq!(Portable::of(&without).unwrap().config, without.config);
    }

    #[test]
    fn an_archive_opens_no_private_networks() {
        let mut asked = asked();
        let egress = ["all", "internet", "none"];
        asked.config["nets"] = egress.map(|egress| json!({ "egress": egress })).into();
        let mut portable = Portable::of(&asked).unwrap();
        portable.reach_no_more();
        let reached = portable.config["nets"].as_array().unwrap().iter();
        let reached: Vec<_> = reached.map(|net| net.get("egress")).collect();
        assert_eq!(
            reached,
            [None, Some(&json!("internet")), Some(&json!("none"))]
        );
    }

    #[test]
    fn what_is_bound_to_its_host_says_by_what() {
        type Change = fn(&mut Asked);
        let changes: [(Change, &str); 4] = [
            (
                |asked| asked.config["disks"] = json!([{"path": "/d"}]),
                "its disks",
            ),
            (
                |asked| asked.config["scratch"] = json!("/s"),
                "its `scratch`",
            ),
            (
                |asked| asked.config["nets"][0]["tap"] = json!("t"),
                "its `tap`",
            ),
            (
                |asked| {
                    let (source, target) = ("/etc".into(), "/srv".into());
                    asked
                        .service
                        .mounts
                        .push(Mount::Directory { source, target });
                },
                "mounted at `/srv`",
            ),
        ];
        for (change, expected) in changes {
            let mut asked = asked();
            change(&mut asked);
            let bound = Portable::of(&asked).unwrap_err();
            assert!(bound.contains(expected), "{bound}");
        }
    }

    #[test]
    fn an_archive_names_no_files_of_this_host() {
        let portable = Portable::of(&asked()).unwrap();
        let root = RootHere {
            source: Path::new("/here").into(),
            image_id: None,
        };
        let described = Described {
            name: None,
            image: "nginx".into(),
            image_id: None,
            root: None,
            own_kernel: true,
            asked: None,
            bound_by: None,
        };
        let here = |portable: Portable| portable.here(&described, Some("/kernel".into()), &root);
        let made = here(portable.clone()).unwrap();
        assert_eq!(
            (&made.config["root"], &made.config["kernel"]),
            (&json!("/here"), &json!("/kernel"))
        );
        assert_eq!(made.service.hostname.as_deref(), Some(made.id.short()));
        for (key, value) in [
            ("initrd", json!("/etc/shadow")),
            ("disks", json!([{"path": "/etc/shadow", "read_only": true}])),
            ("vsock", json!({"path": "/root/x"})),
            ("nets", json!([{"tap": "t"}])),
        ] {
            let mut lying = portable.clone();
            lying.config[key] = value;
            let error = here(lying).unwrap_err().to_string();
            assert!(error.contains("another host's"), "{error}");
        }
    }
}
