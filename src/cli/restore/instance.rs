//! An instance that goes on where another was saved.

use crate::boot::StartedBy;
use crate::instances::book;
use crate::keep::waiting;
use crate::service::Made;
use crate::session;
use crate::snapshot::has_place;
use crate::{Failed, Outcome};
use kvmlet_manager::{Asked, Book, InstanceId, Kept, Moment, Name, Snapshots};
use kvmlet_spec::{PortMapping, VmConfig};
use kvmlet_vmm::snapshot::Saved;
use serde_json::{Value, json};
use std::fs::{copy, hard_link};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf, absolute};

/// What is asked of the new one.
pub(crate) struct Wanted {
    pub name: Option<Name>,
    pub remove: bool,
    /// Instead of the ports that the other one had, if there are any.
    pub publish: Vec<PortMapping>,
    /// Its id, if whoever wants it knows that.
    pub id: Option<InstanceId>,
    /// By whom messages are read.
    pub by: StartedBy,
}

impl Wanted {
    /// Makes it and starts it.
    pub fn start(
        self,
        kept: Kept,
        saved: &Saved,
        ready: Option<OwnedFd>,
        detached: bool,
    ) -> Outcome {
        refuse_changed(&kept.asked)?;
        let book = book()?;
        let file = absolute(&saved.path).map_err(Failed::new)?;
        let base = saved.difference.as_ref().map(|it| absolute(&it.base));
        let base = base.transpose().map_err(Failed::new)?;
        note_move(&book, &kept, &file, base)?;
        self.make(&book, kept.asked, file, ready, detached)
    }

    /// Makes and starts another one of what was asked of one, which goes on from a file.
    pub fn make(
        self,
        book: &Book,
        asked: Asked,
        file: PathBuf,
        ready: Option<OwnedFd>,
        detached: bool,
    ) -> Outcome {
        let Wanted {
            name,
            remove,
            publish,
            id,
            by,
        } = self;
        let id = id
            .map_or_else(InstanceId::random, Ok)
            .map_err(Failed::new)?;
        let (asked, own) = another(book, id, asked, file, remove, &publish)?;
        let wanted = session::Wanted {
            input: asked.service.input,
            terminal: asked.service.terminal,
            group: false,
        };
        if !detached {
            wanted.check()?;
        }
        let supervisor = waiting(&asked.id, by)?;
        let made = Made::new(book, name.as_ref(), asked, supervisor, wanted, detached)?;
        if let Err(failed) = own.iter().try_for_each(Own::take_over) {
            made.forget()?;
            return Err(failed);
        }
        made.start(ready)
    }
}

/// Notes where a file is now that is no longer where it was put, and its base.
fn note_move(book: &Book, kept: &Kept, file: &Path, base: Option<PathBuf>) -> Result<(), Failed> {
    let stays = kept.path == file || has_place(kept);
    if stays && kept.base == base {
        return Ok(());
    }
    let path = if stays { &kept.path } else { file };
    let snapshots = Snapshots::of(book)?;
    let _lock = snapshots.lock()?;
    let path = path.into();
    Ok(snapshots.note(&Kept {
        path,
        base,
        ..kept.clone()
    })?)
}

/// A file of the other instance's own, and where the new one has it.
struct Own {
    from: PathBuf,
    to: PathBuf,
}

impl Own {
    /// Nobody changes it: it may be the same file.
    fn take_over(&self) -> Result<(), Failed> {
        let linked = hard_link(&self.from, &self.to);
        let taken = linked.or_else(|_| copy(&self.from, &self.to).map(drop));
        taken.map_err(|error: io::Error| {
            let what = format!("a part of its root is missing: `{}`", self.from.display());
            Failed::in_vain(what, error)
                .help("keep an instance that runs a directory as long as its snapshots")
        })
    }
}

/// What is asked of another instance that goes on from a file, and which files it takes over.
fn another(
    book: &Book,
    id: InstanceId,
    asked: Asked,
    file: PathBuf,
    remove: bool,
    publish: &[PortMapping],
) -> Result<(Asked, Vec<Own>), Failed> {
    let instances = book.directory().path().join("instances");
    let mut config = asked.config;
    let mut own = Vec::new();
    let (old, new) = (
        instances.join(asked.id.as_str()),
        instances.join(id.as_str()),
    );
    move_paths(&mut config, &old, &new, &mut own);
    if !publish.is_empty() {
        publish_instead(&mut config, publish)?;
    }
    let mut service = asked.service;
    // Unless somebody has said what it is.
    if service.hostname.as_deref() == Some(asked.id.short()) {
        service.hostname = Some(id.short().into());
        if let Some(name) = config.get_mut("hostname") {
            *name = json!(id.short());
        }
    }
    let asked = Asked {
        id,
        created: Moment::now(),
        service,
        config,
        remove,
        snapshot: Some(file),
        ..asked
    };
    Ok((asked, own))
}

/// Has all paths into a directory lead into another one.
fn move_paths(value: &mut Value, old: &Path, new: &Path, own: &mut Vec<Own>) {
    match value {
        Value::String(text) => {
            let from = PathBuf::from(&*text);
            if let Ok(rest) = from.strip_prefix(old) {
                let to = new.join(rest);
                *text = to.display().to_string();
                own.push(Own { from, to });
            }
        }
        Value::Array(all) => {
            all.iter_mut()
                .for_each(|value| move_paths(value, old, new, own));
        }
        Value::Object(all) => {
            all.values_mut()
                .for_each(|value| move_paths(value, old, new, own));
        }
        _ => {}
    }
}

/// Other ports of the host lead to the first interface that kvmlet makes.
fn publish_instead(config: &mut Value, publish: &[PortMapping]) -> Result<(), Failed> {
    let nets = config["nets"].as_array_mut();
    let mut nets = nets.into_iter().flatten();
    let net = nets.find(|net| net["tap"].is_null());
    let net = net.ok_or_else(|| {
        Failed::new("the VM has no interface that ports could lead to, and gets none any more")
            .help("run it with --publish or --net, and save it then")
    })?;
    let ports = publish.iter().map(ToString::to_string);
    net["publish"] = json!(ports.collect::<Vec<_>>());
    Ok(())
}

/// What a guest writes to is not in its snapshot.
pub(crate) fn refuse_changed(asked: &Asked) -> Result<(), Failed> {
    let config = VmConfig::from_json(&asked.config.to_string());
    let config = config.map_err(kvmlet_vmm::Error::from)?;
    let mut disks = config.disks.iter();
    match disks.find(|disk| !disk.read_only) {
        None => Ok(()),
        Some(disk) => {
            let name = disk.source.path().map_or("of the store".into(), |path| {
                format!("`{}`", path.display())
            });
            Err(Failed::new(format!("the instance writes to the disk {name}, which is not in its snapshot"))
                .help("only an instance whose changes are in memory can go on as another one: run it without --scratch and volumes that it can write"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> InstanceId {
        InstanceId::random().unwrap()
    }

    #[test]
    fn what_was_its_own_is_the_new_ones() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let mut asked = Asked::new(InstanceId::random().unwrap(), "directory");
        asked.service.hostname = Some(asked.id.short().into());
        let instances = place.path().join("book/instances");
        let old = instances.join(asked.id.as_str()).join("root.erofs");
        asked.config = json!({"hostname": asked.id.short(), "root": old, "disks": [{"path": "/srv/x", "read_only": true}], "nets": [{"tap": "t"}, {}]});
        let ports = ["8081:80".parse().unwrap()];
        let (new, own) = another(
            &book,
            id(),
            asked.clone(),
            "/tmp/file".into(),
            false,
            &ports,
        )
        .unwrap();
        assert_ne!(new.id, asked.id);
        assert_eq!(new.service.hostname.as_deref(), Some(new.id.short()));
        assert_eq!(new.config["hostname"], json!(new.id.short()));
        let to = instances.join(new.id.as_str()).join("root.erofs");
        assert_eq!((&own[0].from, &own[0].to, own.len()), (&old, &to, 1));
        assert_eq!(new.config["root"], json!(to));
        assert_eq!(new.config["disks"], asked.config["disks"]);
        assert_eq!(
            new.config["nets"][1]["publish"][0],
            json!(ports[0].to_string())
        );
        assert_eq!(new.snapshot.as_deref(), Some(Path::new("/tmp/file")));
        // A name that somebody has given stays.
        asked.service.hostname = Some("tenant".into());
        asked.config = json!({});
        let named = another(&book, id(), asked.clone(), "/f".into(), true, &[])
            .unwrap()
            .0;
        assert_eq!(named.service.hostname.as_deref(), Some("tenant"));
        assert!(named.remove);
        assert!(another(&book, id(), asked, "/f".into(), true, &ports).is_err());
    }

    #[test]
    fn what_the_guest_writes_to_is_no_ones_else() {
        let mut asked = Asked::new(InstanceId::random().unwrap(), "i");
        asked.config = json!({"kernel": "/k", "root": "/r"});
        assert!(refuse_changed(&asked).is_ok());
        asked.config["scratch"] = json!("/s");
        let error = refuse_changed(&asked).unwrap_err().to_string();
        assert!(error.contains("`/s`"), "{error}");
    }
}
