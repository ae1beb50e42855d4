//! Files with holes, in the four forms that GNU tar has had: after the header in blocks of its own ("old"), in records
//! of an extended header (0.0, 0.1), and in front of the data (1.0).

use super::header::BLOCK;
use super::number;
use crate::blob::Stretch;

/// The most stretches that a file has.
pub const MAX_STRETCHES: usize = 1 << 17;

/// What records say of holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The length of the file, holes and all.
    pub size: Option<u64>,
    major: Option<u64>,
    /// Offsets and lengths by turns; `None` where there is no map among the records.
    map: Option<Vec<u64>>,
}

/// How the holes of a file are told.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// There are none.
    None,
    /// They are known.
    Map(Vec<Stretch>),
    /// The data has the map in front.
    InData,
}

impl Told {
    /// Takes a record in, if it is one of these.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let wrong = "GNU.sparse";
        let number = || number::decimal(value).ok_or(wrong);
        match key {
            b"GNU.sparse.major" => self.major = Some(number()?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(number::decimal);
                self.map = Some(numbers.collect::<Option<_>>().ok_or(wrong)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key.ends_with(b"offset");
                let map = self.map.get_or_insert_default();
                if is_offset != map.len().is_multiple_of(2) {
                    return Err(wrong);
                }
                map.push(number()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// What they say altogether.
    pub fn form(self) -> Result<Form, &'static str> {
        match (self.major, self.map) {
            (Some(1), _) => Ok(Form::InData),
            (None | Some(0), None) => Ok(Form::None),
            (None | Some(0), Some(map)) => stretches(&map).map(Form::Map),
            (Some(_), _) => Err("GNU.sparse.major"),
        }
    }
}

/// Stretches from offsets and lengths by turns. Whether they make sense is for others to look at.
pub fn stretches(numbers: &[u64]) -> Result<Vec<Stretch>, &'static str> {
    let (pairs, rest) = numbers.as_chunks();
    if !rest.is_empty() || pairs.len() > MAX_STRETCHES {
        return Err("map of holes");
    }
    let pairs = pairs.iter();
    Ok(pairs
        .map(|[offset, length]| Stretch {
            offset: *offset,
            length: *length,
        })
        .collect())
}

/// An old header's file length, with holes.
pub fn old_size(header: &[u8; BLOCK]) -> Option<u64> {
    u64::try_from(number::field(&header[483..495])?).ok()
}

/// The stretches of an old header, or of a block behind it; and whether another block follows.
pub fn old_map(
    block: &[u8; BLOCK],
    is_header: bool,
    map: &mut Vec<Stretch>,
) -> Result<bool, &'static str> {
    let (entries, more) = match is_header {
        true => (&block[386..482], block[482]),
        false => (&block[..504], block[504]),
    };
    for entry in entries.as_chunks::<24>().0 {
        if entry[0] == 0 {
            break;
        }
        let number = |bytes| u64::try_from(number::field(bytes)?).ok();
        let (Some(offset), Some(length)) = (number(&entry[..12]), number(&entry[12..])) else {
            return Err("map of holes");
        };
        map.push(Stretch { offset, length });
    }
    match map.len() > MAX_STRETCHES {
        true => Err("map of holes"),
        false => Ok(more != 0),
    }
}
