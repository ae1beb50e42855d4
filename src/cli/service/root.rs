//! The root of an instance: an image, or a directory that becomes one.

use crate::Failed;
use kvmlet_manager::{Asked, Book, Instance};
use kvmlet_sys::environment;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `images/build` gives it as well: same files, same bytes.
const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";
const IMAGE: &str = "root.erofs";

pub(super) enum Root {
    /// An image, by its absolute path.
    Image(PathBuf),
    /// A directory, by its.
    Directory(PathBuf),
}

impl Root {
    /// What a path names.
    pub fn find(path: &Path) -> Result<Self, Failed> {
        let failed = |error: io::Error| {
            let failed = Failed::new(format!(
                "cannot use `{}` as a root: {error}",
                path.display()
            ));
            failed.help("name an image of a root file system, such as `images/build nginx` prints, or a directory")
        };
        let found = path.metadata().map_err(|error| match path.to_str() {
            // As `-v /srv:/srv` is read, where -v is for who wants to be told more.
            Some(text) if text.contains(':') => failed(error).help(
                "directories of the host are not shared with guests; say --verbose for more to be told",
            ),
            _ => failed(error),
        })?;
        let path = path.canonicalize().map_err(failed)?;
        Ok(match found.is_dir() {
            true => Self::Directory(path),
            false => Self::Image(path),
        })
    }

    /// Where the image is, or is going to be for an instance of that id.
    pub fn image(&self, book: &Book, asked: &Asked) -> PathBuf {
        match self {
            Self::Image(path) => path.clone(),
            Self::Directory(_) => {
                let instances = book.directory().path().join("instances");
                instances.join(asked.id.as_str()).join(IMAGE)
            }
        }
    }

    /// Makes an image of a directory for an instance, where that keeps what is its own.
    pub fn pack(&self, instance: &Instance) -> Result<(), Failed> {
        let Self::Directory(directory) = self else {
            return Ok(());
        };
        let failed = |why: String| {
            let text = format!("no image can be made of `{}`: {why}", directory.display());
            Failed::new(text)
        };
        let output = Command::new("mkfs.erofs")
            .args(["--all-root", "-T0", "-U", NO_UUID])
            .arg(instance.directory().path().join(IMAGE))
            .arg(directory)
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => failed("there is no `mkfs.erofs`".into())
                    .help("install the package erofs-utils"),
                _ => failed(error.to_string()),
            })?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                Err(failed(last.unwrap_or("mkfs.erofs has failed").into()))
            }
        }
    }
}

/// Where Debian has it, which is not on every user's PATH.
fn search_path() -> OsString {
    let mut path = environment::variable("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin");
    path
}
