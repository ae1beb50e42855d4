//! The way to a place in a tree, as a process would go whose root the tree is: symbolic links lead on, `..` leads no
//! farther up than to the root.

use super::{Kind, Name, NodeId, Tree};

/// As many links are followed as by Linux.
const MAX_LINKS: usize = 40;
/// And as many names are looked at, which bounds what a hostile layer costs: half of what a path can have (PATH_MAX).
const MAX_STEPS: usize = 2048;

/// How far a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The last directory that there is.
    pub directory: NodeId,
    /// The names behind, none of which there is.
    pub missing: Vec<Name>,
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// It goes through something else than a directory.
    #[error("not a directory")]
    NotADirectory,
    /// Of links, or names in them.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
    /// What no file is called, in a link.
    #[error("file name too long")]
    LongName,
}

/// A step of a way.
#[derive(Clone, Debug)]
enum Step {
    Root,
    Up,
    Into(Name),
}

/// The steps that a link's target says, the last one first.
fn steps(target: &[u8]) -> Result<Vec<Step>, Blocked> {
    let root = target.starts_with(b"/").then_some(Ok(Step::Root));
    let names = target.split(|byte| *byte == b'/');
    let steps = names.filter_map(|name| match name {
        b"" | b"." => None,
        b".." => Some(Ok(Step::Up)),
        name => Some(Name::new(name).map(Step::Into).ok_or(Blocked::LongName)),
    });
    let mut all: Vec<Step> = root.into_iter().chain(steps).collect::<Result<_, _>>()?;
    all.reverse();
    Ok(all)
}

impl Tree {
    /// Goes as far on a path as there are directories.
    ///
    /// # Errors
    /// When something is in the way.
    pub fn reach(&self, path: &[Name]) -> Result<Reached, Blocked> {
        let mut waiting: Vec<Step> = path.iter().rev().cloned().map(Step::Into).collect();
        let mut way = vec![Self::ROOT];
        let mut missing: Vec<Name> = Vec::new();
        let (mut links, mut walked) = (0, 0);
        while let Some(step) = waiting.pop() {
            walked += 1;
            if walked > MAX_STEPS {
                return Err(Blocked::TooManyLinks);
            }
            let name = match step {
                Step::Root => {
                    way.truncate(1);
                    missing.clear();
                    continue;
                }
                Step::Up => {
                    if missing.pop().is_none() && way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                Step::Into(name) => name,
            };
            let directory = way.last().copied().unwrap_or(Self::ROOT);
            let there = match missing.is_empty() {
                true => self.children(directory).and_then(|all| all.get(&name)),
                false => None,
            };
            let Some(there) = there.copied() else {
                missing.push(name);
                continue;
            };
            match &self.node(there).kind {
                Kind::Directory(_) => way.push(there),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Blocked::TooManyLinks);
                    }
                    waiting.extend(steps(target)?);
                }
                _ => return Err(Blocked::NotADirectory),
            }
        }
        Ok(Reached {
            directory: way.last().copied().unwrap_or(Self::ROOT),
            missing,
        })
    }
}
