//! Text that is believed only if it is whole: JSON on one line, and below it a line with the length and checksum of that.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The second line.
#[derive(Serialize, Deserialize)]
struct Seal {
    bytes: usize,
    crc32: String,
}

impl Seal {
    fn of(text: &[u8]) -> Self {
        Self {
            bytes: text.len(),
            crc32: format!("{:08x}", crc32fast::hash(text)),
        }
    }
}

/// Why a text is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A part of it is missing.
    #[error("a part of it is missing")]
    Cut,
    /// Something in it has changed since it was written.
    #[error("its checksum is wrong")]
    Changed,
    /// It is whole, and says what this version does not understand.
    #[error("it says what this version of kvmlet does not understand")]
    Unknown(#[source] serde_json::Error),
}

/// The text of a value, and its seal.
pub(crate) fn seal(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    let seal = serde_json::to_vec(&Seal::of(&text))?;
    text.push(b'\n');
    text.extend(seal);
    text.push(b'\n');
    Ok(text)
}

/// The value whose text this is, whatever stands behind its seal.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Broken> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut line = || lines.next()?.strip_suffix(b"\n");
    let (Some(text), Some(seal)) = (line(), line()) else {
        return Err(Broken::Cut);
    };
    let seal: Seal = serde_json::from_slice(seal).map_err(|_| Broken::Cut)?;
    let found = Seal::of(text);
    if (found.bytes, found.crc32) != (seal.bytes, seal.crc32) {
        return Err(Broken::Changed);
    }
    serde_json::from_slice(text).map_err(Broken::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_sealed_is_read_back() {
        let text = seal(&["a", "b\nc"]).unwrap();
        assert_eq!(open::<Vec<String>>(&text).unwrap(), ["a", "b\nc"]);
        // People can read it, and so can every reader of JSON lines.
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "[\"a\",\"b\\nc\"]\n{\"bytes\":12,\"crc32\":\"17ca8607\"}\n"
        );
        assert!(matches!(
            open::<u8>(text.as_bytes()),
            Err(Broken::Unknown(_))
        ));
    }

    proptest! {
        #[test]
        fn no_part_is_taken_for_the_whole(at in 0..200_usize) {
            let text = seal(&"x".repeat(120)).unwrap();
            prop_assert!(open::<String>(&text[..at.min(text.len() - 1)]).is_err());
        }

        #[test]
        fn no_change_is_taken(at in 0..120_usize, bit in 0..8) {
            let mut text = seal(&"x".repeat(120)).unwrap();
            text[at] ^= 1_u8 << bit;
            prop_assert!(open::<String>(&text).is_err());
        }
    }
}
