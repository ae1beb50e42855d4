//! The package index of a release of Alpine's, as `apk update` leaves it.

mod version;

use super::Error;
use super::index::{self, Index};
use super::packages::Release;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Where apk keeps it, with a name for each repository.
pub const CACHE: &str = "/var/cache/apk";
/// What is read of a description, and of a list of packages.
const MAX_DESCRIPTION: u64 = 4 << 10;
const MAX_LIST: u64 = 256 << 20;

/// What is known of a release; nothing if it is unknown here.
///
/// # Errors
/// When it cannot be read.
pub fn index(cache: &Path, release: &Release) -> Result<Option<Index>, Error> {
    let mut index = Index::new(version::compare);
    let mut is_known = false;
    for (name, path) in index::files(cache)? {
        if name.starts_with("APKINDEX.") && name.ends_with(".tar.gz") {
            let added = add(&path, release, &mut index);
            is_known |= added.map_err(|source| Error::Index { path, source })?;
        }
    }
    Ok(is_known.then_some(index))
}

/// Adds what a repository has, if it is of this release, which its description tells, in front of its packages.
fn add(path: &Path, release: &Release, index: &mut Index) -> io::Result<bool> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(File::open(path)?));
    let mut is_of = false;
    for entry in archive.entries()? {
        let entry = entry?;
        match &*entry.path_bytes() {
            b"DESCRIPTION" => {
                let mut text = String::new();
                entry.take(MAX_DESCRIPTION).read_to_string(&mut text)?;
                is_of = is_about(&text, &release.version);
            }
            b"APKINDEX" if is_of => {
                index.read(entry.take(MAX_LIST), ["P", "V", ""])?;
                return Ok(true);
            }
            _ => {}
        }
    }
    Ok(false)
}

/// `v3.20.3-12-gabcdef` is of 3.20, and so is an image of 3.20.1; what is no release yet is told by its day alone.
fn is_about(description: &str, version: &str) -> bool {
    let Some(branch) = description.trim().strip_prefix('v') else {
        return false;
    };
    let branch = branch.split('-').next().unwrap_or_default();
    let series = |text: &str| {
        let mut parts = text.splitn(3, '.');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    match version.contains('_') {
        true => !branch.is_empty() && !branch.contains('.'),
        false => series(branch).is_some_and(|it| Some(it) == series(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_that_of_its_release() {
        for (description, version, expected) in [
            ("v3.20.3-12-gabc\n", "3.20.1", true),
            ("v3.20.3-12-gabc", "3.2.1", false),
            ("v3.20", "3.20.0", true),
            ("v20240807-1-gabc", "3.21.0_alpha20240807", true),
            ("v3.20.3", "3.21.0_alpha20240807", false),
            ("v20240807-1-gabc", "3.20.1", false),
            ("", "3.20.1", false),
            ("v", "", false),
        ] {
            assert_eq!(
                is_about(description, version),
                expected,
                "{description} {version}"
            );
        }
    }
}
