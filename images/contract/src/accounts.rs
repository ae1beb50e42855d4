//! Users and groups by name or number, and what an image's `/etc/passwd` and `/etc/group` (passwd(5), group(5)) say of them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Error;

/// The most supplementary groups of a process.
pub const MAX_GROUPS: usize = 256;

/// A user or a group, as its user has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// By number, which nobody needs to know.
    Number(u32),
    /// By name, which the image has to know.
    Name(String),
}

/// Whom to run as: `USER`, `USER:GROUP` or `:GROUP`, as docker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user; root where only a group was said.
    pub user: Account,
    /// The one group. Without, it is the user's own, or root's if nobody knows the user, and those that have the user as a member.
    pub group: Option<Account>,
}

/// Whom a process runs as, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, at most [`MAX_GROUPS`].
    pub groups: Vec<u32>,
    /// The user's directory, if the image knows the user.
    pub home: Option<String>,
}

/// Why nobody can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountError {
    /// No user has that name.
    NoUser(String),
    /// No group has that name.
    NoGroup(String),
    /// There are more than [`MAX_GROUPS`].
    TooManyGroups,
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(name) => write!(f, "the image's /etc/passwd has no user \"{name}\""),
            Self::NoGroup(name) => write!(f, "the image's /etc/group has no group \"{name}\""),
            Self::TooManyGroups => write!(f, "the user is in more than {MAX_GROUPS} groups"),
        }
    }
}

impl core::error::Error for AccountError {}

impl Account {
    /// Reads a number or a name; nothing if it can be neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // setuid(2) and chown(2) take -1 as "leave it".
            let number = text.parse().ok().filter(|number| *number != u32::MAX);
            return number.map(Self::Number);
        }
        let possible = |c: char| !c.is_control() && !matches!(c, ':' | ',' | '/');
        text.chars().all(possible).then(|| Self::Name(text.into()))
    }

    fn is(&self, name: &[u8], number: u32) -> bool {
        match self {
            Self::Number(own) => *own == number,
            Self::Name(own) => own.as_bytes() == name,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl User {
    /// The user with the number 0.
    pub const ROOT: Self = Self {
        user: Account::Number(0),
        group: None,
    };

    /// Reads `USER`, `USER:GROUP` or `:GROUP`, each a number or a name.
    ///
    /// # Errors
    ///
    /// When it is something else; the message names `key`.
    pub fn parse(key: &str, text: &str) -> Result<Self, Error> {
        const REASON: &str = "should be USER or USER:GROUP, each a name or a number";
        let refused = || Error::value(key, text, REASON);
        let (user, group) = match text.split_once(':') {
            None => (text, None),
            Some((user, group)) => (user, Some(group)),
        };
        let user = match (user, group) {
            ("", None) => return Err(refused()),
            ("", Some(_)) => Account::Number(0),
            (user, _) => Account::parse(user).ok_or_else(refused)?,
        };
        let group = match group {
            None => None,
            Some(group) => Some(Account::parse(group).ok_or_else(refused)?),
        };
        Ok(Self { user, group })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user)?;
        match &self.group {
            None => Ok(()),
            Some(group) => write!(f, ":{group}"),
        }
    }
}

/// Finds out whom a [`User`] means, from the lines of the image's two files; a file that is missing has none.
#[derive(Debug)]
pub struct Lookup<'a> {
    user: &'a User,
    extra: &'a [Account],
    /// Which of `extra` were found.
    found: Vec<bool>,
    /// The user's line was seen: its name.
    name: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    home: Option<String>,
    /// Where a group was asked for and seen.
    explicit_gid: Option<u32>,
    groups: Vec<u32>,
}

impl<'a> Lookup<'a> {
    /// Looks for `user`, who is also to be in the groups `extra`.
    pub fn new(user: &'a User, extra: &'a [Account]) -> Self {
        Self {
            user,
            extra,
            found: alloc::vec![false; extra.len()],
            name: None,
            uid: None,
            gid: None,
            home: None,
            explicit_gid: None,
            groups: Vec::new(),
        }
    }

    /// Takes a line of `/etc/passwd`. All of them come before those of groups.
    pub fn passwd_line(&mut self, line: &[u8]) {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(_), Some(uid), Some(gid)) = (
            fields.next(),
            fields.next(),
            fields.next().and_then(number),
            fields.next().and_then(number),
        ) else {
            return;
        };
        if self.name.is_some() || name.is_empty() || !self.user.user.is(name, uid) {
            return;
        }
        self.name = Some(name.into());
        self.uid = Some(uid);
        self.gid = Some(gid);
        let home = fields
            .nth(1)
            .and_then(|home| core::str::from_utf8(home).ok());
        self.home = home.filter(|home| home.starts_with('/')).map(Into::into);
    }

    /// Takes a line of `/etc/group`.
    pub fn group_line(&mut self, line: &[u8]) {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(_), Some(gid)) =
            (fields.next(), fields.next(), fields.next().and_then(number))
        else {
            return;
        };
        if name.is_empty() {
            return;
        }
        match &self.user.group {
            Some(group) if group.is(name, gid) => {
                self.explicit_gid.get_or_insert(gid);
            }
            Some(_) => {}
            None => {
                let mut members = fields
                    .next()
                    .unwrap_or_default()
                    .split(|byte| *byte == b',');
                if let Some(user) = &self.name
                    && members.any(|member| member == &user[..])
                {
                    self.add(gid);
                }
            }
        }
        for index in 0..self.extra.len() {
            if !self.found[index] && self.extra[index].is(name, gid) {
                self.found[index] = true;
                self.add(gid);
            }
        }
    }

    fn add(&mut self, gid: u32) {
        // One more than there may be, so that `finish` notices.
        if self.groups.len() <= MAX_GROUPS && !self.groups.contains(&gid) {
            self.groups.push(gid);
        }
    }

    /// Says whom that makes.
    ///
    /// # Errors
    ///
    /// When a name is in no file. A number that nobody knows is one all the same.
    pub fn finish(mut self) -> Result<Identity, AccountError> {
        let uid = match (&self.user.user, self.uid) {
            (_, Some(uid)) => uid,
            (Account::Number(uid), None) => *uid,
            (Account::Name(name), None) => return Err(AccountError::NoUser(name.clone())),
        };
        let gid = match (&self.user.group, self.explicit_gid) {
            (Some(_), Some(gid)) => gid,
            (Some(Account::Number(gid)), None) => *gid,
            (Some(Account::Name(name)), None) => return Err(AccountError::NoGroup(name.clone())),
            (None, _) => self.gid.unwrap_or(0),
        };
        for (index, group) in self.extra.iter().enumerate() {
            match group {
                _ if self.found[index] => {}
                Account::Number(gid) => self.add(*gid),
                Account::Name(name) => return Err(AccountError::NoGroup(name.clone())),
            }
        }
        if self.groups.len() > MAX_GROUPS {
            return Err(AccountError::TooManyGroups);
        }
        Ok(Identity {
            uid,
            gid,
            groups: self.groups,
            home: self.home,
        })
    }
}

fn number(field: &[u8]) -> Option<u32> {
    let number = core::str::from_utf8(field).ok()?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

#[cfg(test)]
mod tests;
