//! An image for podman, docker and containerd: one layer with nothing but the service in it, in the form that
//! `docker save` writes and all of them load.

use super::Service;
use super::bundle;
use crate::launch::output;
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The image's name, as `run` takes it.
pub(super) const NAME: &str = "kvmlet-bench/ready:1";

/// Makes the archive, and returns its path.
pub(super) fn make(directory: &Path, service: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("the image cannot be made: {error}");
    let root = bundle::make_root(directory, service).map_err(failed)?;
    archive(&directory.join("layer.tar"), &root, &["."])?;
    let layer = directory.join("layer.tar");
    let sum = output(&[OsStr::new("sha256sum"), layer.as_os_str()])?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/ready"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    for (name, value) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(directory.join(name), value.to_string()).map_err(failed)?;
    }
    let file = directory.join("image.tar");
    archive(
        &file,
        directory,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(file)
}

/// What is run instead of the image's own command.
pub(super) fn command(service: Service) -> &'static [&'static str] {
    match service {
        Service::Ends => &[],
        Service::Stays => &["/ready", "stay"],
    }
}

fn archive(file: &Path, directory: &Path, names: &[&str]) -> Result<(), String> {
    let [tar, create, within] = ["tar", "-cf", "-C"].map(OsStr::new);
    let mut argv = vec![tar, create, file.as_os_str(), within, directory.as_os_str()];
    argv.extend(names.iter().map(OsStr::new));
    output(&argv).map(drop)
}
