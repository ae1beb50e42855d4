//! Extended attributes behind an inode: a header of 12 bytes (for attributes that inodes share, of which there are none
//! here), then each one's name and value.

use crate::tree::Xattrs;

const HEADER: usize = 12;

/// What is behind an inode, in a multiple of four bytes; nothing where there are no attributes.
pub fn encode(xattrs: &Xattrs) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in xattrs.iter() {
        if bytes.is_empty() {
            bytes.resize(HEADER, 0);
        }
        let rest = name.rest();
        // `Xattrs` has the bounds of both.
        bytes.extend_from_slice(&[rest.len() as u8, name.namespace()]);
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// What the inode says of attributes of this length: in words of four bytes, the header counting as one.
pub fn count(length: usize) -> u16 {
    match length.checked_sub(HEADER) {
        Some(entries) => (1 + entries / 4) as u16,
        None => 0,
    }
}
