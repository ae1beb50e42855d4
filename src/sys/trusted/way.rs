//! The way to a directory: nobody but this user and root decides what is found by its path.

use super::{OTHERS_WRITE, Problem};
use crate::users;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const STICKY: u32 = 0o1000;

/// `kvmlet` in a directory that has to be this user's own. (Containers have a `/run` to which all can add.)
///
/// # Errors
/// When it is another user's, or somebody else decides what is found by its path.
pub fn vouch_for_own(directory: &Path) -> Result<PathBuf, Problem> {
    let (real, meta) = vouch(directory)?;
    match meta.uid() == rustix::process::geteuid().as_raw() {
        true => Ok(real.join("kvmlet")),
        false => Err(untrusted(directory, &real, &meta)),
    }
}

/// The path, if nobody but this user and root decides what is found by it.
///
/// # Errors
/// Names the directory that makes it doubtful.
pub fn vouch_for_parent(path: &Path) -> Result<PathBuf, Problem> {
    let name = path.file_name().unwrap_or_default();
    let parent = path.parent().unwrap_or(path);
    Ok(vouch(parent)?.0.join(name))
}

/// A path without links to the same directory, and what that is, if each part of the path can be changed by this
/// user and root only.
fn vouch(path: &Path) -> Result<(PathBuf, Metadata), Problem> {
    if let Some(meta) = walk(path, path)? {
        return Ok((path.into(), meta));
    }
    let real = fs::canonicalize(path).map_err(|error| Problem::unusable(path, error))?;
    match walk(&real, path)? {
        Some(meta) => Ok((real, meta)),
        // Somebody is at work.
        None => Err(Problem::NotADirectory { path: real }),
    }
}

/// What a path leads to; none if a part of it is a link. Looked at from the top: once a part is safe, what the next
/// name means cannot change any more.
fn walk(path: &Path, asked: &Path) -> Result<Option<Metadata>, Problem> {
    let mut last = None;
    let mut parts: Vec<&Path> = path.ancestors().collect();
    if parts.len() > 1 {
        // Whoever owns `/` is root.
        parts.pop();
    }
    for part in parts.into_iter().rev() {
        let meta = look(part)?;
        if !is_safe(&meta) || !meta.is_dir() && !meta.is_symlink() {
            return Err(untrusted(asked, part, &meta));
        }
        if meta.is_symlink() {
            return Ok(None);
        }
        last = Some(meta);
    }
    Ok(last)
}

fn look(path: &Path) -> Result<Metadata, Problem> {
    fs::symlink_metadata(path).map_err(|error| Problem::unusable(path, error))
}

/// Is it root's or this user's, and can others at most add to it? (The mode of a link means nothing.)
fn is_safe(meta: &Metadata) -> bool {
    let closed = meta.is_symlink() || meta.mode() & OTHERS_WRITE == 0 || meta.mode() & STICKY != 0;
    closed && users::is_this_or_root(meta.uid())
}

fn untrusted(path: &Path, part: &Path, meta: &Metadata) -> Problem {
    Problem::Parent {
        path: path.into(),
        part: part.into(),
        owner: meta.uid(),
        mode: meta.mode() & 0o7777,
    }
}

/// The user's number outside of the user namespace: the same user has one directory, inside and outside, and two
/// who are both root of a namespace have two.
pub fn outer_user(user: u32) -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    translate(&map, user).unwrap_or(user)
}

/// By a map of user_namespaces(7): first number inside, first outside, how many.
fn translate(map: &str, user: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Result<Vec<u32>, _> = line.split_whitespace().map(str::parse).collect();
        let [inside, outside, count] = numbers.ok()?[..] else {
            return None;
        };
        let at = user.checked_sub(inside)?;
        (at < count).then(|| outside.checked_add(at))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_their_outer_number() {
        assert_eq!(
            translate("         0          0 4294967295\n", 1000),
            Some(1000)
        );
        assert_eq!(translate("0 1000 1\n", 0), Some(1000));
        assert_eq!(translate("0 1000 1\n1 100000 65536\n", 5), Some(100_004));
        assert_eq!(translate("0 1000 1\n", 1), None);
        assert_eq!(translate("5 1000 1\n", 1), None);
        assert_eq!(translate("", 1), None);
    }
}
