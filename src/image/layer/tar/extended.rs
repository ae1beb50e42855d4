//! Extended headers (PAX): records that say more of the next member than its header has room for.

use super::number;
use super::sparse::Told;
use crate::tree::Time;

/// What extended headers say of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// In the place of the header's.
    pub path: Option<Vec<u8>>,
    /// In the place of both, for a sparse file: the others are made up then.
    pub sparse_path: Option<Vec<u8>>,
    /// In the place of the header's.
    pub target: Option<Vec<u8>>,
    /// In the place of the header's.
    pub size: Option<u64>,
    /// In the place of the header's.
    pub uid: Option<u64>,
    /// In the place of the header's.
    pub gid: Option<u64>,
    /// In the place of the header's.
    pub mtime: Option<Time>,
    /// Extended attributes, each with its whole name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it says of holes.
    pub sparse: Told,
}

/// What the name of an extended attribute has in front.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Extended {
    /// Takes records in: each is its own length in decimal digits, a space, a key, `=`, a value of any bytes, and a line
    /// end. An empty value leaves to the header what it says. Keys that nobody here knows are skipped.
    ///
    /// # Errors
    /// What is wrong with which record.
    pub fn read(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ');
            let space = space.ok_or("length")?;
            let length = number::decimal(&records[..space]).ok_or("length")?;
            let length = usize::try_from(length).map_err(|_| "length")?;
            let record = records.get(space + 1..length).ok_or("length")?;
            let (b'\n', record) = record.split_last().ok_or("length")? else {
                return Err("end");
            };
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("key")?;
            self.record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.push((name.into(), value.into()));
            return Ok(());
        }
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(path(value).ok_or("path")?),
            b"linkpath" => self.target = Some(path(value).ok_or("linkpath")?),
            b"size" => self.size = Some(number::decimal(value).ok_or("size")?),
            b"uid" => self.uid = Some(number::decimal(value).ok_or("uid")?),
            b"gid" => self.gid = Some(number::decimal(value).ok_or("gid")?),
            b"mtime" => self.mtime = Some(number::time(value).ok_or("mtime")?),
            b"GNU.sparse.name" => self.sparse_path = Some(path(value).ok_or("GNU.sparse.name")?),
            _ => self.sparse.record(key, value)?,
        }
        Ok(())
    }
}

fn path(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_any_bytes() {
        let mut extended = Extended::default();
        let value = b"1\n2\0=3\xff";
        let xattr = [&b"SCHILY.xattr.user.x="[..], value, b"\n"].concat();
        let xattr = [format!("{} ", xattr.len() + 3).as_bytes(), &xattr].concat();
        extended.read(b"12 path=a=b\n").unwrap();
        extended.read(&xattr).unwrap();
        extended
            .read(b"8 path=\n14 comment=hi\n15 mtime=-0.25\n")
            .unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(extended.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
        let mtime = extended.mtime.unwrap();
        assert_eq!((mtime.seconds, mtime.nanoseconds), (-1, 750_000_000));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (records, part) in [
            (&b"x path=a\n"[..], "length"),
            (b"5 path=a\n", "end"),
            (b"99999999999999999999999 path=a\n", "length"),
            (b"99 path=a\n", "length"),
            (b"2 \n", "length"),
            (b"0 \n", "length"),
            (b"3 \n", "key"),
            (b"8 path=a", "end"),
            (b"10 path=a\0\n", "length"),
            (b"11 path=a\0\n", "path"),
            (b"9 size=-\n", "size"),
            (b"9 path:a\n", "key"),
        ] {
            let error = Extended::default().read(records);
            assert!(error.is_err(), "{}: {part}", records.escape_ascii());
        }
    }
}
