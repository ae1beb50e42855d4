//! What cannot go on from a template.

use super::super::root::Root;
use crate::Failed;
use kvmlet_manager::Asked;
use kvmlet_spec::VmConfig;

/// Refuses what others of the same could not go on from.
pub(super) fn refuse_cold(asked: &Asked, root: &Root) -> Result<(), Failed> {
    let service = &asked.service;
    let why = |text: String, help: &str| Err(Failed::new(text).help(help.to_owned()));
    if let Root::Directory(path) = root {
        return why(
            format!(
                "the directory `{}` becomes another image with each run, and cannot be run warm",
                path.display()
            ),
            "make an image of it first: `kvmlet build`, or a file (erofs or ext4)",
        );
    }
    if service.terminal || service.input {
        return why(
            "a service with a terminal or an input cannot be run warm: what it was told is in its template".into(),
            "leave out -t and -i",
        );
    }
    let own = format!("/{}/", asked.id);
    let config = VmConfig::from_json(&asked.config.to_string());
    let config = config.map_err(kvmlet_vmm::Error::from)?;
    for disk in &config.disks {
        let path = disk.source.path().map(|path| path.display().to_string());
        let name = path.as_deref().unwrap_or("of the store");
        if !disk.read_only {
            return why(
                format!(
                    "the service writes to the disk `{name}`, which is not in a template: it cannot be run warm"
                ),
                "leave out --scratch, and mount volumes to be read only (`:ro`); what changes in its root is in its memory then",
            );
        }
        if name.contains(&own) {
            return why(
                "a directory that is mounted becomes another image with each run, and cannot be run warm".into(),
                "mount a volume (`-v NAME:/PATH:ro`), or put the files into the image",
            );
        }
    }
    Ok(())
}
