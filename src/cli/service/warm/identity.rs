//! What a template is of. The request is what a user asks for, as far as a guest knows of it; the facts are what that means on this
//! host today. What each run has of its own (name, addresses, ports, host name) is in neither.

use super::super::root::Root;
use crate::Failed;
use kvmlet_image::Digest;
use kvmlet_manager::{Asked, Template};
use kvmlet_spec::{DiskSource, VmConfig};
use kvmlet_sys::kvm::processor;
use kvmlet_vmm::snapshot::VERSION;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Of what is asked for.
pub(super) fn of(asked: &Asked, root: &Root) -> Result<Template, Failed> {
    let config = VmConfig::from_json(&asked.config.to_string());
    let config = config.map_err(kvmlet_vmm::Error::from)?;
    let mut image = BTreeSet::new();
    for disk in &config.disks {
        match &disk.source {
            DiskSource::Path(path) => drop(image.insert(stamp(path)?)),
            DiskSource::Extents(extents) => {
                for extent in extents.as_slice() {
                    image.insert(stamp(extent.path())?);
                }
            }
        }
    }
    image.extend(asked.image_id.clone());
    let mut facts = BTreeMap::from([
        ("its image or a volume".to_owned(), digest(&json!(image))),
        ("this host's processor".to_owned(), processor()),
        (
            "kvmlet's version".to_owned(),
            format!("{} {VERSION}", env!("CARGO_PKG_VERSION")),
        ),
    ]);
    let kernel = [Some(config.kernel.as_path()), config.initrd.as_deref()];
    let kernel = kernel.into_iter().flatten().map(stamp);
    let kernel = kernel.collect::<Result<Vec<_>, _>>()?;
    facts.insert("the guests' kernel".into(), digest(&json!(kernel)));
    Ok(Template {
        request: digest(&request(asked, root)?),
        facts,
    })
}

fn request(asked: &Asked, root: &Root) -> Result<Value, Failed> {
    let image = match root {
        Root::Stored(_) => asked.image.clone(),
        Root::Image(path) | Root::Directory(path) => path.display().to_string(),
    };
    let mut service = asked.service.clone();
    service.hostname = None;
    let mut config = asked.config.clone();
    if let Some(config) = config.as_object_mut() {
        // Where they lie is told by the image's name, and what they are are facts.
        for key in ["root", "initrd", "hostname"] {
            config.remove(key);
        }
        for net in config
            .get_mut("nets")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(net) = net.as_object_mut() {
                net.remove("publish");
            }
        }
    }
    Ok(json!({
        "image": image,
        "command": asked.command,
        "service": service,
        "health": asked.health,
        "config": config,
        "ports": ports(&asked.config),
    }))
}

/// The guest's published ports: whether they are served is what a service is waited for.
fn ports(config: &Value) -> BTreeSet<String> {
    let nets = config["nets"].as_array();
    let published = nets.into_iter().flatten();
    let published = published
        .filter_map(|net| net["publish"].as_array())
        .flatten();
    let guests = published.filter_map(Value::as_str);
    let guests = guests.filter_map(|text| text.parse::<kvmlet_spec::PortMapping>().ok());
    guests.map(|port| crate::ports::guest(&port)).collect()
}

/// A file, and when it was written last.
fn stamp(path: &Path) -> Result<String, Failed> {
    let found = path
        .metadata()
        .map_err(|error| Failed::in_vain(format!("cannot look at `{}`", path.display()), error))?;
    let (device, inode, size) = (found.dev(), found.ino(), found.size());
    let changed = (found.mtime(), found.mtime_nsec());
    Ok(format!(
        "{} {device} {inode} {size} {}.{:09}",
        path.display(),
        changed.0,
        changed.1
    ))
}

fn digest(value: &Value) -> String {
    Digest::of(value.to_string().as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_manager::InstanceId;

    fn asked(place: &Path) -> Asked {
        let id = InstanceId::random().unwrap();
        let mut asked = Asked::new(id, "root.img");
        asked.service.hostname = Some(asked.id.short().into());
        asked.command = vec!["serve".into()];
        asked.config = json!({
            "kernel": place.join("kernel"),
            "root": place.join("root.img"),
            "hostname": asked.id.short(),
            "memory": "64 MiB",
            "nets": [{"publish": ["8080:80"]}],
        });
        asked
    }

    #[test]
    fn what_a_run_has_of_its_own_is_no_part_of_it_and_what_it_is_made_of_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for name in ["kernel", "root.img"] {
            std::fs::write(place.join(name), "content").unwrap();
        }
        let root = || Root::Image(place.join("root.img"));
        let of = |asked: &Asked| super::of(asked, &root()).unwrap();
        let first = of(&asked(place));
        let mut other = asked(place);
        other.config["nets"][0]["publish"] = json!(["127.0.0.1:9090:80"]);
        other.labels.insert("a".into(), "b".into());
        other.remove = true;
        assert_eq!(of(&other), first);
        let changes: [fn(&mut Asked); 5] = [
            |asked| asked.command.push("more".into()),
            |asked| asked.config["memory"] = json!("65 MiB"),
            |asked| asked.service.env = vec![("A".into(), "1".into())],
            |asked| asked.service.user = Some("7".into()),
            |asked| asked.config["nets"] = json!([]),
        ];
        for change in changes {
            let mut other = asked(place);
            change(&mut other);
            assert_ne!(of(&other).request, first.request, "{other:?}");
        }
        for (name, fact) in [
            ("root.img", "its image or a volume"),
            ("kernel", "the guests' kernel"),
        ] {
            std::fs::write(place.join(name), "other content").unwrap();
            let now = of(&asked(place));
            assert_eq!(now.request, first.request);
            assert!(first.changed(&now).any(|it| it == fact), "{fact}");
        }
    }
}
