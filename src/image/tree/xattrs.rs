//! Extended attributes, as far as EROFS has them.

use std::collections::BTreeMap;

/// Extended attributes of one file, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(BTreeMap<XattrName, Box<[u8]>>);

/// The name of an extended attribute in a namespace that EROFS knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct XattrName {
    namespace: Namespace,
    rest: Box<[u8]>,
}

/// What a name begins with; its number is the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Namespace {
    User = 1,
    AclAccess = 2,
    AclDefault = 3,
    Trusted = 4,
    Security = 6,
}

/// All of them, with the text. Two are whole names.
const NAMESPACES: [(Namespace, &[u8]); 5] = [
    (Namespace::User, b"user."),
    (Namespace::AclAccess, b"system.posix_acl_access"),
    (Namespace::AclDefault, b"system.posix_acl_default"),
    (Namespace::Trusted, b"trusted."),
    (Namespace::Security, b"security."),
];

/// More extended attributes, or longer ones, than a file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("extended attributes of more than {} bytes", Xattrs::MAX)]
pub struct TooLarge;

impl XattrName {
    /// Returns `None` for a namespace that EROFS does not have, or a name that Linux does not take (XATTR_NAME_MAX).
    pub fn new(name: &[u8]) -> Option<Self> {
        let (namespace, rest) = NAMESPACES
            .iter()
            .find_map(|(namespace, text)| Some((*namespace, name.strip_prefix(*text)?)))?;
        let is_whole = matches!(namespace, Namespace::AclAccess | Namespace::AclDefault);
        let fits = name.len() <= 255 && !name.contains(&0) && rest.is_empty() == is_whole;
        fits.then(|| Self {
            namespace,
            rest: rest.into(),
        })
    }

    /// The same, but for overlayfs's own, which would hide files in a guest.
    pub fn for_guests(name: &[u8]) -> Option<Self> {
        let own = [&b"trusted.overlay."[..], b"user.overlay."];
        let is_own = own.into_iter().any(|prefix| name.starts_with(prefix));
        if is_own { None } else { Self::new(name) }
    }

    /// The namespace's number in EROFS.
    pub fn namespace(&self) -> u8 {
        self.namespace as u8
    }

    /// What is behind the namespace.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The whole name.
    pub fn to_bytes(&self) -> Vec<u8> {
        let found = NAMESPACES.iter().find(|(it, _)| *it == self.namespace);
        let text = found.map_or(&b""[..], |(_, text)| text);
        [text, &self.rest].concat()
    }
}

impl Xattrs {
    /// What all of a file's take at most, in EROFS's form; one value takes 65,535 (the format's and Linux's bounds).
    pub const MAX: usize = 128 << 10;

    /// Sets one.
    ///
    /// # Errors
    /// When a file cannot have as much. They are as before then.
    pub fn insert(&mut self, name: XattrName, value: &[u8]) -> Result<(), TooLarge> {
        let old = self.0.insert(name.clone(), value.into());
        if value.len() <= usize::from(u16::MAX) && self.encoded() <= Self::MAX {
            return Ok(());
        }
        match old {
            Some(old) => self.0.insert(name, old),
            None => self.0.remove(&name),
        };
        Err(TooLarge)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = (&XattrName, &[u8])> {
        self.0.iter().map(|(name, value)| (name, &**value))
    }

    /// What all of them take in EROFS's form: each four bytes, its name and its value, filled up to four bytes.
    fn encoded(&self) -> usize {
        self.iter()
            .map(|(name, value)| (4 + name.rest.len() + value.len()).next_multiple_of(4))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_erofs_has() {
        for name in [
            "user.a",
            "trusted.a.b",
            "security.capability",
            "system.posix_acl_access",
            "system.posix_acl_default",
        ] {
            let known = XattrName::new(name.as_bytes()).unwrap();
            assert_eq!(known.to_bytes(), name.as_bytes());
        }
        let long = format!("user.{}", "n".repeat(251));
        for name in [
            "",
            "user.",
            "user",
            "system.nfs4_acl",
            "system.posix_acl_access2",
            "btrfs.compression",
            "user.a\0b",
            &long,
        ] {
            assert_eq!(XattrName::new(name.as_bytes()), None, "{name}");
        }
        assert!(XattrName::new(&long.as_bytes()[..255]).is_some());
    }

    #[test]
    fn what_a_file_cannot_have_changes_nothing() {
        let name = |text: &str| XattrName::new(text.as_bytes()).unwrap();
        let mut xattrs = Xattrs::default();
        xattrs.insert(name("user.a"), b"1").unwrap();
        assert_eq!(xattrs.insert(name("user.a"), &[0; 65_536]), Err(TooLarge));
        assert_eq!(xattrs.insert(name("user.b"), &[0; 65_536]), Err(TooLarge));
        xattrs.insert(name("user.b"), &[0; 65_535]).unwrap();
        assert_eq!(xattrs.insert(name("user.c"), &[0; 65_535]), Err(TooLarge));
        let kept: Vec<_> = xattrs
            .iter()
            .map(|(name, value)| (name.to_bytes(), value.len()))
            .collect();
        assert_eq!(
            kept,
            [(b"user.a".to_vec(), 1), (b"user.b".to_vec(), 65_535)]
        );
    }
}
