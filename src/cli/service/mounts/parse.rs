//! Docker's words for mounts.

use crate::size::size;
use kvmlet_manager::VolumeName;
use std::fmt;
use std::path::{Path, PathBuf};

/// A mount as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub source: Source,
    pub target: Place,
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A volume; one without a name goes with its instance.
    Volume {
        name: Option<VolumeName>,
        bytes: Option<u64>,
        filled: bool,
    },
    /// A directory of this host, as it is now.
    Directory(PathBuf),
    /// Memory of the guest's.
    Tmpfs { flags: u32, options: String },
}

/// Where something is mounted: an absolute path in the guest, without what says nothing in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = || {
            text.split('/')
                .filter(|part| !part.is_empty() && *part != ".")
        };
        if !text.starts_with('/') {
            return Err(format!(
                "`{text}` is not a path in the guest: those begin with `/`"
            ));
        }
        if parts().any(|part| part == "..") {
            return Err(format!("`{text}` leads upwards: say where it leads to"));
        }
        let place: String = parts().map(|part| format!("/{part}")).collect();
        match place.as_str() {
            "" => Err("nothing is mounted over the root: the image is there".into()),
            "/proc" | "/sys" | "/dev" => Err(format!(
                "nothing is mounted over `{place}`, which is the guest kernel's"
            )),
            _ => Ok(Self(place)),
        }
    }

    /// In how many directories it is.
    pub fn depth(&self) -> usize {
        self.0.matches('/').count()
    }

    /// One that is there more than once.
    pub fn twice<'a>(places: impl Iterator<Item = &'a Self>) -> Option<&'a Self> {
        let mut seen = Vec::new();
        for place in places {
            if seen.contains(&place) {
                return Some(place);
            }
            seen.push(place);
        }
        None
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[NAME|DIR:]/PATH[:OPTIONS]`.
pub(super) fn volume(text: &str) -> Result<Wanted, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err("more than SOURCE:/PATH:OPTIONS".into()),
    };
    let (mut read_only, mut filled) = (false, true);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => filled = false,
            // Labels of SELinux's, and how mounts spread: a guest has neither from its host.
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            other => return Err(format!("`{other}` is not one of ro, rw and nocopy")),
        }
    }
    Ok(Wanted {
        source: from(source, None, filled, read_only)?,
        target: Place::parse(target)?,
        read_only,
    })
}

/// A volume without a name where an image asks for one. It names a place and nothing else: what would be an option or a directory
/// of this host on a command line is a part of the path.
pub(super) fn of_image(place: &str) -> Result<Wanted, String> {
    Ok(Wanted {
        source: from("", None, true, false)?,
        target: Place::parse(place)?,
        read_only: false,
    })
}

/// A volume by its name, or a directory by its path.
fn from(source: &str, bytes: Option<u64>, filled: bool, read_only: bool) -> Result<Source, String> {
    if source.starts_with(['/', '.', '~']) {
        return directory(source, read_only);
    }
    let name = match source {
        "" => None,
        name => Some(
            name.parse::<VolumeName>()
                .map_err(|error| match name.contains('/') {
                    true => format!("{error}; a directory of this host begins with `/` or `.`"),
                    false => error.to_string(),
                })?,
        ),
    };
    Ok(Source::Volume {
        name,
        bytes,
        filled,
    })
}

fn directory(source: &str, read_only: bool) -> Result<Source, String> {
    match read_only {
        true => Ok(Source::Directory(Path::new(source).into())),
        false => Err(format!(
            "`{source}` is a directory of this host, and those are not shared with a guest, whose kernel has disks of its own: \
             read only (`:ro`) it has a copy of what is there now; what it keeps goes into a volume (NAME:/PATH), \
             and `kvmlet cp` copies both ways"
        )),
    }
}

/// `type=...,KEY=VALUE,...`.
pub(super) fn mount(text: &str) -> Result<Wanted, String> {
    let mut words = Words::default();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        words.take(item)?;
    }
    words.wanted()
}

/// What `--mount` says.
#[derive(Default)]
struct Words<'a> {
    kind: Option<&'a str>,
    source: &'a str,
    target: Option<&'a str>,
    read_only: bool,
    no_copy: bool,
    volume_bytes: Option<u64>,
    tmpfs: Vec<String>,
}

impl<'a> Words<'a> {
    fn take(&mut self, item: &'a str) -> Result<(), String> {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        match key {
            "type" => self.kind = Some(value),
            "source" | "src" => self.source = value,
            "target" | "destination" | "dst" => self.target = Some(value),
            "readonly" | "ro" => self.read_only = switch(key, value)?,
            "volume-nocopy" => self.no_copy = switch(key, value)?,
            "volume-size" => self.volume_bytes = Some(bytes(value)?),
            "tmpfs-size" => self.tmpfs.push(format!("size={}", bytes(value)?)),
            "tmpfs-mode" => self.tmpfs.push(format!("mode={value}")),
            // Of no use to a guest, which has neither from its host.
            "bind-propagation" | "consistency" => {}
            other => {
                return Err(format!(
                    "`{other}` is not one of type, source, target, readonly, volume-nocopy, volume-size, tmpfs-size and tmpfs-mode"
                ));
            }
        }
        Ok(())
    }

    fn wanted(self) -> Result<Wanted, String> {
        let target = Place::parse(self.target.ok_or("it has no target: add target=/PATH")?)?;
        let read_only = self.read_only;
        let source = match self.kind.unwrap_or("volume") {
            "volume" => match from(self.source, self.volume_bytes, !self.no_copy, read_only)? {
                Source::Directory(_) => return Err("a directory is mounted by type=bind".into()),
                volume => volume,
            },
            "bind" => directory(self.source, read_only)?,
            "tmpfs" if self.source.is_empty() => memory(&self.tmpfs.join(","))?,
            "tmpfs" => return Err("memory has no source".into()),
            other => {
                return Err(format!(
                    "type `{other}` is not one of volume, tmpfs and bind"
                ));
            }
        };
        Ok(Wanted {
            source,
            target,
            read_only,
        })
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("`{key}` is true or false, not `{other}`")),
    }
}

/// `/PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<Wanted, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    Ok(Wanted {
        source: memory(options)?,
        target: Place::parse(target)?,
        read_only: false,
    })
}

/// Options of mount(8)'s: those of any mount as flags, and what a tmpfs itself understands (tmpfs(5)).
fn memory(options: &str) -> Result<Source, String> {
    // As docker has it.
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let mut own = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= libc::MS_RDONLY,
            "rw" => flags &= !libc::MS_RDONLY,
            "noexec" => flags |= libc::MS_NOEXEC,
            "exec" => flags &= !libc::MS_NOEXEC,
            "nosuid" => flags |= libc::MS_NOSUID,
            "suid" => flags &= !libc::MS_NOSUID,
            "nodev" => flags |= libc::MS_NODEV,
            "dev" => flags &= !libc::MS_NODEV,
            "noatime" => flags |= libc::MS_NOATIME,
            other => own.push(of_tmpfs(other)?),
        }
    }
    Ok(Source::Tmpfs {
        flags: flags as u32,
        options: own.join(","),
    })
}

fn of_tmpfs(option: &str) -> Result<String, String> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let number = |radix| u32::from_str_radix(value, radix).is_ok();
    match key {
        // In percent of the guest's memory, too.
        "size"
            if value
                .strip_suffix('%')
                .is_some_and(|it| it.parse::<u8>().is_ok()) =>
        {
            Ok(option.into())
        }
        "size" => Ok(format!("size={}", bytes(value)?)),
        "mode" if number(8) => Ok(option.into()),
        "uid" | "gid" | "nr_inodes" if number(10) => Ok(option.into()),
        "mode" | "uid" | "gid" | "nr_inodes" => Err(format!("`{option}` is not {key}=NUMBER")),
        _ => Err(format!(
            "`{option}` is not one of size, mode, uid, gid, nr_inodes, and of ro, exec, suid, dev and their opposites"
        )),
    }
}

pub(super) fn shm(text: &str) -> Result<u64, String> {
    bytes(text)
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = size(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("`{text}` is not a size, such as 64m or 1.5g"))
}

#[cfg(test)]
mod tests;
