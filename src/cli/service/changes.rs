//! Where changes of a root are kept.

use super::root::file_of;
use crate::Failed;
use clap::Args;
use kvmlet_manager::{Asked, Book};
use kvmlet_spec::{Memory, Scratch, VmConfigBuilder};

/// In the directory of an instance.
const SCRATCH: &str = "scratch.ext4";

/// What becomes of changes: unless something is said, they are in the guest's memory.
#[derive(Args)]
pub(super) struct Changes {
    /// Keep what changes in the root on a disk: of that size, which goes with the instance, or FILE[,size=SIZE], which stays.
    #[arg(long, value_name = "SIZE|FILE", value_parser = kept, conflicts_with = "read_only")]
    scratch: Option<Kept>,
    /// The service cannot change its root.
    #[arg(long)]
    read_only: bool,
}

/// A disk that keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// The instance's own, of that size.
    Own(Memory),
    /// Its user's.
    File(Scratch),
}

impl Changes {
    /// Says so to the machine of an instance.
    pub fn apply(
        &self,
        config: VmConfigBuilder,
        book: &Book,
        asked: &Asked,
    ) -> Result<VmConfigBuilder, Failed> {
        let (path, size) = match &self.scratch {
            None => return Ok(config.read_only(self.read_only)),
            Some(Kept::Own(size)) => (file_of(book, asked, SCRATCH), Some(*size)),
            Some(Kept::File(Scratch { path, size })) => {
                (std::path::absolute(path).map_err(Failed::new)?, *size)
            }
        };
        let config = config.scratch(path);
        Ok(match size {
            Some(size) => config.scratch_size(size),
            None => config,
        })
    }
}

/// A size, or a file.
fn kept(text: &str) -> Result<Kept, String> {
    let digits = text.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
    let is_number = digits.len() < text.len() && !text.starts_with('.');
    // A unit is not longer (GiB), and a file of a name like that can be told by its directory.
    let is_size =
        is_number && digits.len() <= 3 && digits.chars().all(|char| char.is_ascii_alphabetic());
    match (is_size, text.parse::<Memory>()) {
        (true, Ok(size)) => Ok(Kept::Own(size)),
        (true, Err(error)) => Err(format!("{error}; a file of that name is `./{text}`")),
        (false, _) => {
            let file = text.parse().map(Kept::File);
            file.map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_from_a_file() {
        let file = |path: &str, size: Option<&str>| {
            let (path, size) = (path.into(), size.map(|size| size.parse().unwrap()));
            Kept::File(Scratch { path, size })
        };
        for (text, expected) in [
            ("1G", Kept::Own("1G".parse().unwrap())),
            ("512m", Kept::Own("512M".parse().unwrap())),
            ("db.img", file("db.img", None)),
            ("./1G", file("./1G", None)),
            ("1G.img", file("1G.img", None)),
            ("db.img,size=2G", file("db.img", Some("2G"))),
        ] {
            assert_eq!(kept(text).unwrap(), expected, "{text}");
        }
        assert!(kept("db.img,ro").is_err());
        for text in ["1X", "10GGB", "0.5Y"] {
            let error = kept(text).unwrap_err();
            assert!(
                error.contains(&format!("a file of that name is `./{text}`")),
                "{error}"
            );
        }
        assert_eq!(kept("2024data.img").unwrap(), file("2024data.img", None));
    }
}
