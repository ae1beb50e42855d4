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
            let help = Meant::by(path).help();
            Failed::in_vain(format!("cannot use `{}` as a root", path.display()), error).help(help)
        };
        let found = path.metadata().map_err(failed)?;
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

/// What somebody had in mind who named an image that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    /// A file or directory.
    Path,
    /// An image of a registry: `nginx`, `nginx:latest`, `library/nginx`, `registry.example:5000/nginx@sha256:0123`.
    Reference,
    /// A directory to be shared, as `-v /srv:/srv` is read, where -v is for who wants to be told more.
    Volume,
}

impl Meant {
    fn by(path: &Path) -> Self {
        let Some(text) = path.to_str() else {
            return Self::Path;
        };
        let (is_path, has_colon) = (text.starts_with(['/', '.', '~']), text.contains(':'));
        let is_file = [".erofs", ".ext4", ".img", ".raw", ".squashfs"]
            .iter()
            .any(|end| text.ends_with(end));
        match (is_path, has_colon) {
            (true, true) => Self::Volume,
            (true, false) => Self::Path,
            // A host's directory may be named from here, and a guest's is from its root.
            (false, true) if text.contains(":/") => Self::Volume,
            (false, false) if is_file || text.ends_with('/') => Self::Path,
            (false, _) => Self::Reference,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Path => {
                "name an image of a root file system, such as `images/build nginx` prints, or a directory"
            }
            Self::Reference => {
                "images from registries are not there yet: name the file of a root file system, such as `images/build nginx` prints, \
                 or a directory with all that the service needs"
            }
            Self::Volume => {
                "directories of the host are not shared with guests; say --verbose for more to be told"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_told_from_paths_and_volumes() {
        for (text, meant) in [
            ("nginx", Meant::Reference),
            ("nginx:latest", Meant::Reference),
            ("library/nginx", Meant::Reference),
            ("localhost:5000/nginx:1.2", Meant::Reference),
            ("nginx@sha256:0123", Meant::Reference),
            ("/srv:/srv", Meant::Volume),
            ("./data:/data:ro", Meant::Volume),
            ("data:/data", Meant::Volume),
            ("nginx.erofs", Meant::Path),
            ("./nginx", Meant::Path),
            ("/images/nginx", Meant::Path),
            ("root/", Meant::Path),
        ] {
            assert_eq!(Meant::by(Path::new(text)), meant, "{text}");
        }
    }
}
