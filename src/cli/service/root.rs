//! The root of an instance: an image of the store or of a file, or a directory that becomes one.

use super::image::{self, Pull};
use super::packing;
use crate::Failed;
use kvmlet_image::config::ImageConfig;
use kvmlet_image::pack::Owners;
use kvmlet_image::store::StoredImage;
use kvmlet_manager::{Asked, Book, Instance, Text};
use kvmlet_spec::DiskSource;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

const IMAGE: &str = "root.erofs";
/// Where a root says what it runs, for kvmlet's init.
const SERVICE_FILE: &str = "etc/kvmlet/service.json";

pub(super) enum Root {
    /// An image, by its absolute path.
    Image(PathBuf),
    /// A directory, by its.
    Directory(PathBuf),
    /// An image of the store, which stays there as long as this value, or an instance that has it.
    Stored(Box<StoredImage>),
}

impl Root {
    /// What a path names, or what an image's name does. A file or directory of that name comes first, as it has always.
    pub fn find(path: &Path, pull: Pull) -> Result<Self, Failed> {
        let reference = path
            .to_str()
            .filter(|_| Meant::by(path) == Meant::Reference);
        match (path.metadata(), reference) {
            (Err(error), Some(name)) if is_missing(&error) => {
                Ok(Self::Stored(Box::new(image::find(name, pull)?)))
            }
            (found, reference) => {
                let root = Self::at(path, found)?;
                reference.map_or(Ok(()), image::tell_that_path_is_taken)?;
                Ok(root)
            }
        }
    }

    /// What an image's name does, whatever file there is of that name.
    pub fn stored(name: &Path, pull: Pull) -> Result<Self, Failed> {
        let found = image::find(&name.to_string_lossy(), pull)?;
        Ok(Self::Stored(Box::new(found)))
    }

    fn at(path: &Path, found: io::Result<Metadata>) -> Result<Self, Failed> {
        let failed = |error: io::Error| {
            let help = Meant::by(path).help();
            Failed::in_vain(format!("cannot use `{}` as a root", path.display()), error).help(help)
        };
        let found = found.map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        if path.join("oci-layout").is_file() {
            let path = path.display();
            let text = format!("`{path}` is the layout of an image, and not a root");
            return Err(Failed::new(text).help(format!(
                "`kvmlet load --input {path}` brings it into the store, from which it is run by its name"
            )));
        }
        Ok(match found.is_dir() {
            true => Self::Directory(path),
            false => Self::Image(path),
        })
    }

    /// Where its content is, or is going to be for an instance of that id.
    pub fn source(&self, book: &Book, asked: &Asked) -> Result<DiskSource, Failed> {
        Ok(match self {
            Self::Image(path) => path.into(),
            Self::Directory(_) => file_of(book, asked, IMAGE).into(),
            Self::Stored(stored) => image::extents(&stored.image)?.into(),
        })
    }

    /// Refuses a directory that does not say what it runs, where nobody else does.
    pub fn refuse_silent(&self, command: &[Text]) -> Result<(), Failed> {
        let Self::Directory(directory) = self else {
            return Ok(());
        };
        let says = || directory.join(SERVICE_FILE).symlink_metadata().is_ok();
        match command.is_empty() && !says() {
            true => {
                let name = directory.display();
                Err(Failed::new(format!("`{name}` does not say what it runs")).help(format!(
                    "say it behind the directory: `kvmlet run {name} PROGRAM`; or in {SERVICE_FILE} in it: {{\"command\": [\"/srv/app\"]}}"
                )))
            }
            false => Ok(()),
        }
    }

    /// What an image of the store says of how it is run.
    pub fn config(&self) -> Option<&ImageConfig> {
        match self {
            Self::Stored(stored) => Some(&stored.image.config),
            _ => None,
        }
    }

    /// The id of an image of the store.
    pub fn image_id(&self) -> Option<String> {
        match self {
            Self::Stored(stored) => Some(stored.image.id.to_string()),
            _ => None,
        }
    }

    /// Makes an image of a directory for an instance, where that keeps what is its own.
    pub fn pack(&self, instance: &Instance) -> Result<(), Failed> {
        let Self::Directory(directory) = self else {
            return Ok(());
        };
        let image = instance.directory().path().join(IMAGE);
        packing::pack(&image, directory, Owners::Root)
    }
}

/// The content of a root that is here, for an instance that is made of an archive.
pub(crate) struct RootHere {
    /// Where it is.
    pub source: DiskSource,
    /// By which id, if it is an image of the store.
    pub image_id: Option<String>,
}

impl RootHere {
    /// What a user names: a file or an image of the store, of which none is pulled.
    pub fn find(named: &Path) -> Result<Self, Failed> {
        let root = Root::find(named, Pull::Never)?;
        let source = match &root {
            Root::Image(path) => path.into(),
            Root::Stored(stored) => image::extents(&stored.image)?.into(),
            Root::Directory(path) => {
                let path = path.display();
                return Err(Failed::new(format!("`{path}` is a directory"))
                    .help("name the image that was made of it for the instance"));
            }
        };
        let image_id = root.image_id();
        Ok(Self { source, image_id })
    }
}

/// Where an instance of that id is going to have a file.
pub(super) fn file_of(book: &Book, asked: &Asked, name: &str) -> PathBuf {
    let instances = book.directory().path().join("instances");
    instances.join(asked.id.as_str()).join(name)
}

/// Nothing is there, or what should be a directory is none.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// What somebody had in mind who named an image that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    /// A file or directory.
    Path,
    /// An image of a registry: `nginx`, `nginx:latest`, `library/nginx`, `registry.example:5000/nginx@sha256:0123`.
    Reference,
    /// A volume or a directory to be mounted, without the flag for it.
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
                "name the file of a root file system, such as `images/build nginx` prints, a directory with all that the service \
                 needs, or an image"
            }
            Self::Volume => "`-v NAME:/PATH` mounts a volume; the image stands behind that",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_an_image_is_no_root() {
        let directory = tempfile::tempdir().unwrap();
        let found = Root::find(directory.path(), Pull::Never);
        assert!(matches!(found, Ok(Root::Directory(_))));
        std::fs::write(directory.path().join("oci-layout"), "{}").unwrap();
        let found = Root::find(directory.path(), Pull::Never);
        let error = found.err().unwrap().to_string();
        assert!(error.contains("is the layout of an image"), "{error}");
    }

    #[test]
    fn a_directory_says_what_it_runs_or_its_user_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let root = Root::Directory(path.into());
        let error = root.refuse_silent(&[]).unwrap_err().to_string();
        let named = format!("`kvmlet run {} PROGRAM`", path.display());
        assert!(
            error.contains(&named) && error.contains("service.json"),
            "{error}"
        );
        assert!(root.refuse_silent(&[Text::Utf8("/srv/app".into())]).is_ok());
        std::fs::create_dir_all(path.join("etc/kvmlet")).unwrap();
        std::fs::write(path.join(SERVICE_FILE), "{}").unwrap();
        assert!(root.refuse_silent(&[]).is_ok());
    }

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
