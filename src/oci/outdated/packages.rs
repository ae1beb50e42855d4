//! Packages that an image says it has: dpkg's notes, as Debian's images and those without dpkg have them, or apk's, as
//! Alpine's have them; and which distribution it is of. All of it is a stranger's text.

use kvmlet_image::store::{self, Files};
use std::collections::BTreeMap;
use std::fmt;

/// The longest file of notes, and how many there are where each package has its own.
const MAX_LENGTH: u64 = 64 << 20;
const MAX_FILES: usize = 100_000;
/// Longer names, versions and architectures are nobody's.
const MAX_TEXT: usize = 256;

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// For which machine: `amd64`, `all`. An image has those of apk for one machine, and nothing is said here.
    pub architecture: String,
    /// As dpkg or apk has it.
    pub version: String,
}

/// Which distribution an image is made of, as `os-release` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// `debian`, `ubuntu`, `alpine`.
    pub distribution: String,
    /// `bookworm`.
    pub codename: String,
    /// `3.20.1`.
    pub version: String,
}

/// By its name, or its number where it has none.
impl fmt::Display for Release {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.codename.is_empty() {
            true => &self.version,
            false => &self.codename,
        };
        write!(out, "{} {name}", self.distribution)
    }
}

/// What an image has noted of its packages, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// dpkg.
    Dpkg(Vec<Package>),
    /// apk.
    Apk(Vec<Package>),
    /// rpm: in a database that is not read here.
    Rpm,
    /// Nobody that is known.
    Nothing,
}

/// Stanzas of `Key: value` lines, with those fields that are wanted. Others, and lines that go on, are skipped.
pub fn stanzas<'a, const N: usize>(
    text: &'a str,
    wanted: [&'static str; N],
) -> impl Iterator<Item = [&'a str; N]> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut found = [""; N];
        let mut has_any = false;
        for line in lines.by_ref() {
            if line.is_empty() {
                if has_any {
                    return Some(found);
                }
                continue;
            }
            has_any = true;
            if let Some((key, value)) = line.split_once(':')
                && let Some(at) = wanted.iter().position(|it| *it == key)
            {
                found[at] = value.trim();
            }
        }
        has_any.then_some(found)
    })
}

/// Fit to be compared and printed.
fn is_plain(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Packages of dpkg's notes.
fn of_notes(text: &str) -> Vec<Package> {
    let fields = ["Package", "Status", "Version", "Architecture"];
    let all = stanzas(text, fields).filter_map(|[name, status, version, architecture]| {
        // Of notes without dpkg there is no status.
        let is_installed = status.is_empty() || status.ends_with(" installed");
        let is_plain = [name, version, architecture].into_iter().all(is_plain);
        (is_installed && is_plain).then(|| Package {
            name: name.into(),
            architecture: architecture.into(),
            version: version.into(),
        })
    });
    all.collect()
}

/// Packages of apk's notes.
fn of_apk(text: &str) -> Vec<Package> {
    let all = stanzas(text, ["P", "V"]).filter(|all| all.iter().all(|text| is_plain(text)));
    let package = |[name, version]: [&str; 2]| Package {
        name: name.into(),
        architecture: String::new(),
        version: version.into(),
    };
    all.map(package).collect()
}

/// Those of an image.
///
/// # Errors
/// When the store cannot be read.
pub fn of_image(files: &Files) -> Result<Noted, store::Error> {
    let dpkg = of_dpkg(files)?;
    if !dpkg.is_empty() {
        return Ok(Noted::Dpkg(dpkg));
    }
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        if let Some(bytes) = files.read(path, MAX_LENGTH)? {
            let mut all = of_apk(&String::from_utf8_lossy(&bytes));
            all.sort();
            return Ok(Noted::Apk(all));
        }
    }
    let places = ["var/lib/rpm", "usr/lib/sysimage/rpm"].into_iter();
    let mut names = places.flat_map(|place| files.names(place));
    let is_database = |name: Vec<u8>| {
        let known: [&[u8]; 3] = [b"rpmdb.sqlite", b"Packages", b"Packages.db"];
        known.contains(&&*name)
    };
    Ok(match names.any(is_database) {
        true => Noted::Rpm,
        false => Noted::Nothing,
    })
}

fn of_dpkg(files: &Files) -> Result<Vec<Package>, store::Error> {
    let mut all = Vec::new();
    let mut add = |path: &str| -> Result<(), store::Error> {
        if let Some(bytes) = files.read(path, MAX_LENGTH)? {
            all.extend(of_notes(&String::from_utf8_lossy(&bytes)));
        }
        Ok(())
    };
    add("var/lib/dpkg/status")?;
    const EACH: &str = "var/lib/dpkg/status.d";
    for name in files.names(EACH).into_iter().take(MAX_FILES) {
        match std::str::from_utf8(&name) {
            Ok(name) if !name.ends_with(".md5sums") => add(&format!("{EACH}/{name}"))?,
            _ => {}
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Which distribution an image is of; of none that says so, nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn release(files: &Files) -> Result<Release, store::Error> {
    for path in ["usr/lib/os-release", "etc/os-release"] {
        if let Some(bytes) = files.read(path, 64 << 10)? {
            return Ok(of_os_release(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(Release::default())
}

fn of_os_release(text: &str) -> Release {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let values: BTreeMap<&str, &str> = pairs
        .map(|(key, value)| (key.trim(), value.trim().trim_matches(['"', '\''])))
        .collect();
    let of = |key: &str| {
        values
            .get(key)
            .filter(|it| is_plain(it))
            .map_or(String::new(), |it| (*it).into())
    };
    Release {
        distribution: of("ID").to_lowercase(),
        codename: of("VERSION_CODENAME"),
        version: of("VERSION_ID"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_dpkg_are_read() {
        let text = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nDescription: x\n more: y\n Package: no\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
            Package: half\nStatus: install ok half-installed\nVersion: 1\nArchitecture: all\n\n\n\
            Package: b\nVersion: 1\nArchitecture: all\n\nPackage: \u{1b}[31m\nVersion: 1\nArchitecture: all\n\nnonsense\n";
        let found = of_notes(text);
        let found: Vec<_> = found
            .iter()
            .map(|it| (&*it.name, &*it.version, &*it.architecture))
            .collect();
        assert_eq!(found, [("a", "1:2-3", "amd64"), ("b", "1", "all")]);
        assert!(of_notes("").is_empty());
    }

    #[test]
    fn a_release_is_named_by_its_image() {
        let text = "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME='bookworm'\n";
        let expected = Release {
            distribution: "debian".into(),
            codename: "bookworm".into(),
            version: "12".into(),
        };
        assert_eq!(expected.to_string(), "debian bookworm");
        let alpine = of_os_release("ID=alpine\nVERSION_ID=3.20.1\n");
        assert_eq!(alpine.to_string(), "alpine 3.20.1");
        assert_eq!(of_os_release(text), expected);
        assert_eq!(
            of_os_release("ID=\nVERSION_CODENAME=a b\n"),
            Release::default()
        );
    }
}
