//! What images are called: a table, which is written anew with each change.

use super::{Error, Store};
use crate::Digest;
use crate::reference::Reference;
use kvmlet_sys::temporary::Temporary;
use rustix::fs::fsync;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const FILE: &str = "names";
/// The longest table: a hundred thousand names.
const MAX: u64 = 64 << 20;

/// Images by what they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub BTreeMap<Reference, Digest>);

impl Names {
    /// Those of an image, sorted, tags first.
    pub fn of(&self, id: &Digest) -> Vec<Reference> {
        let of_image = self.0.iter().filter(|(_, image)| *image == id);
        let mut names: Vec<_> = of_image.map(|(name, _)| name.clone()).collect();
        names.sort_by_key(|name| name.tag().is_none());
        names
    }

    /// One name on a line, with the image in front; the last line is the checksum of the others.
    fn to_bytes(&self) -> Vec<u8> {
        let lines = self.0.iter();
        let lines = lines.map(|(name, id)| format!("{id} {}\n", name.canonical()));
        let mut text: String = lines.collect();
        let checksum = crc32fast::hash(text.as_bytes());
        text += &format!("crc32 {checksum:08x}\n");
        text.into_bytes()
    }

    /// Reads them, and whether nothing has changed since they were written; what can be read is read anyway.
    fn from_bytes(bytes: &[u8]) -> (Self, bool) {
        let text = String::from_utf8_lossy(bytes);
        let mut names = BTreeMap::new();
        let mut whole = false;
        let mut before = crc32fast::Hasher::new();
        for line in text.split_inclusive('\n') {
            let sum = before.clone().finalize();
            whole = line == format!("crc32 {sum:08x}\n");
            before.update(line.as_bytes());
            // Without its end a name may be another one.
            let entry = line
                .strip_suffix('\n')
                .and_then(|line| line.split_once(' '));
            let name = entry
                .and_then(|(id, name)| Some((Reference::parse(name).ok()?, Digest::parse(id)?)));
            names.extend(name);
        }
        (Self(names), whole)
    }
}

impl Store {
    /// All names.
    pub(super) fn names(&self) -> Result<Names, Error> {
        match self.read_names()? {
            (names, true) => Ok(names),
            (_, false) => Err(Error::Names(self.directory.path().join(FILE))),
        }
    }

    /// All names that can be read, and whether those are all.
    pub(super) fn read_names(&self) -> Result<(Names, bool), Error> {
        let path = self.directory.path().join(FILE);
        let bytes = self.directory.read(FILE, MAX).map_err(Error::io(&path))?;
        Ok(bytes.map_or((Names::default(), true), |bytes| Names::from_bytes(&bytes)))
    }

    /// Has the table on the disk; whoever calls has the gate.
    pub(super) fn write_names(&self, names: &Names) -> Result<(), Error> {
        let path = self.directory.path().join(FILE);
        let failed = Error::io(&path);
        let mut new = Temporary::private(&self.directory).map_err(&failed)?;
        new.file().write_all(&names.to_bytes()).map_err(&failed)?;
        new.file().sync_data().map_err(&failed)?;
        new.publish(Path::new(FILE)).map_err(&failed)?;
        fsync(&self.directory).map_err(|error| failed(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_taken_and_no_part_is_the_whole() {
        let name = |text: &str| Reference::parse(text).unwrap();
        let (first, second) = (Digest([1; 32]), Digest([2; 32]));
        let at_digest = name("nginx").at_digest(Digest([3; 32]));
        let names = Names(BTreeMap::from([
            (name("nginx"), first),
            (at_digest.clone(), first),
            (name("localhost:5000/x/y:1"), second),
        ]));
        assert_eq!(names.of(&first), [name("nginx"), at_digest]);
        let bytes = names.to_bytes();
        assert_eq!(Names::from_bytes(&bytes), (names.clone(), true));
        for length in 0..bytes.len() {
            let (part, whole) = Names::from_bytes(&bytes[..length]);
            assert!(!whole, "{length}");
            for found in part.0.keys() {
                assert!(names.0.contains_key(found), "{found:?}");
            }
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(!Names::from_bytes(&changed).1, "{at}");
        }
    }
}
