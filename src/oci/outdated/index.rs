//! The package index of this host, as `apt update` has left it: which version of a package each release has.

use super::packages::{Package, Release, stanzas};
use super::{Error, version};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where apt keeps it.
pub const LISTS: &str = "/var/lib/apt/lists";
/// Reads what apt has compressed, however it does that.
const READER: [&str; 2] = ["/usr/lib/apt/apt-helper", "cat-file"];
/// What is read of a file about a release, and of a line of one about packages.
const MAX_RELEASE: u64 = 1 << 20;
const MAX_LINE: u64 = 1 << 20;
/// What the fields of a package are called.
const DEBIAN: [&str; 3] = ["Package", "Version", "Architecture"];

/// Which of two versions is the newer one.
type Order = fn(&str, &str) -> Ordering;

/// The newest version of each package and architecture that one release has here.
#[derive(Debug)]
pub struct Index {
    all: BTreeMap<(String, String), String>,
    order: Order,
}

impl Index {
    /// One that has nothing yet.
    pub fn new(order: Order) -> Self {
        Self {
            all: BTreeMap::new(),
            order,
        }
    }

    /// What is known of a release, its updates and those for security among it; nothing if it is unknown here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(lists: &Path, release: &Release) -> Result<Option<Self>, Error> {
        let mut index = Self::new(version::debian);
        let mut is_known = false;
        let files = files(lists)?;
        for (name, path) in &files {
            let of_release = ["_InRelease", "_Release"].iter();
            let start = of_release.filter_map(|end| name.strip_suffix(end)).next();
            let Some(start) = start else {
                continue;
            };
            if !is_about(path, release)? {
                continue;
            }
            for (name, path) in &files {
                let rest = name.strip_prefix(start).and_then(|it| it.strip_prefix('_'));
                let plain = rest.and_then(|rest| rest.split('.').next());
                if plain.is_some_and(|it| it.ends_with("_Packages")) {
                    index.add(path)?;
                    is_known = true;
                }
            }
        }
        Ok(is_known.then_some(index))
    }

    /// The newest version that a package has, if that is newer than this one.
    pub fn newer(&self, package: &Package) -> Option<&str> {
        let key = (package.name.clone(), package.architecture.clone());
        let newest = self.all.get(&key)?;
        (self.order)(newest, &package.version)
            .is_gt()
            .then_some(newest)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Index {
            path: path.into(),
            source,
        };
        if path.extension().is_none() {
            let file = File::open(path).map_err(failed)?;
            return self.read(file, DEBIAN).map_err(failed);
        }
        let mut child = Command::new(READER[0])
            .arg(READER[1])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let read = child
            .stdout
            .take()
            .map_or(Ok(()), |out| self.read(out, DEBIAN));
        let status = child.wait().map_err(failed)?;
        read.map_err(failed)?;
        match status.success() {
            true => Ok(()),
            false => Err(failed(io::Error::other(format!(
                "`{}` has ended with {status}",
                READER.join(" ")
            )))),
        }
    }

    /// Adds what a list of packages has, where it is newer: a name, a version and an architecture, as their fields are called.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, list: impl Read, fields: [&str; 3]) -> io::Result<()> {
        let mut lines = BufReader::with_capacity(256 << 10, list);
        let mut line = Vec::new();
        let [mut name, mut version, mut architecture] = [const { String::new() }; 3];
        loop {
            line.clear();
            let count = Read::by_ref(&mut lines)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)?;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                let all = [&mut name, &mut version, &mut architecture];
                let [name, version, architecture] = all.map(std::mem::take);
                if !name.is_empty() && !version.is_empty() {
                    self.note((name, architecture), version);
                }
                if count == 0 {
                    return Ok(());
                }
            } else if let Some((key, value)) = text.split_once(':') {
                let field = fields.iter().position(|field| *field == key);
                let value = || value.trim_start().to_owned();
                match field {
                    Some(0) => name = value(),
                    Some(1) => version = value(),
                    Some(_) => architecture = value(),
                    None => {}
                }
            }
        }
    }

    fn note(&mut self, package: (String, String), version: String) {
        match self.all.entry(package) {
            Entry::Vacant(entry) => drop(entry.insert(version)),
            Entry::Occupied(mut entry) => {
                if (self.order)(&version, entry.get()).is_gt() {
                    entry.insert(version);
                }
            }
        }
    }
}

/// Names and paths of all that there is; nothing where there is no such directory.
pub(super) fn files(lists: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |source| Error::Index {
        path: lists.into(),
        source,
    };
    let entries = match fs::read_dir(lists) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.is_file()
        {
            all.push((name.to_owned(), path));
        }
    }
    Ok(all)
}

/// Whether a file of apt's is about a release, or its updates, which are installed without being asked for.
fn is_about(path: &Path, release: &Release) -> Result<bool, Error> {
    let failed = |source| Error::Index {
        path: path.into(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_RELEASE)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let fields = ["Origin", "Codename", "NotAutomatic"];
    // A signature's own header may stand in front.
    let found = stanzas(&text, fields)
        .find(|[origin, codename, _]| !origin.is_empty() && !codename.is_empty());
    let Some([origin, codename, not_automatic]) = found else {
        return Ok(false);
    };
    let rest = codename.strip_prefix(&*release.codename);
    let is_named = matches!(rest, Some("" | "-security" | "-updates" | "/updates"));
    let is_of = origin.to_lowercase() == release.distribution;
    Ok(is_named && is_of && not_automatic != "yes" && !release.codename.is_empty())
}
