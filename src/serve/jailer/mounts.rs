//! Where cgroups are on this host.

use std::io;
use std::path::{Path, PathBuf};

/// What is mounted of cgroups, by its options: those of version 1 name their controllers there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    one: Vec<(PathBuf, Vec<String>)>,
    two: Option<PathBuf>,
}

impl Mounts {
    /// Those of this process.
    pub fn read() -> io::Result<Self> {
        std::fs::read_to_string("/proc/self/mounts").map(|text| Self::of(&text))
    }

    /// As the kernel tells them (proc_pid_mounts(5)).
    pub fn of(text: &str) -> Self {
        let mut mounts = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(place), Some(kind), Some(options)) =
                (words.nth(1), words.next(), words.next())
            else {
                continue;
            };
            let place = PathBuf::from(unescaped(place));
            match kind {
                "cgroup" => {
                    let options = options.split(',').map(Into::into).collect();
                    mounts.one.push((place, options));
                }
                "cgroup2" => drop(mounts.two.get_or_insert(place)),
                _ => {}
            }
        }
        mounts
    }

    /// The root of the hierarchy of version 1 that has a controller.
    pub fn of_controller(&self, controller: &str) -> Option<&Path> {
        let mut all = self.one.iter();
        let found = all.find(|(_, options)| options.iter().any(|option| option == controller));
        found.map(|(place, _)| &**place)
    }

    /// The root of those of version 2.
    pub fn unified(&self) -> Option<&Path> {
        self.two.as_deref()
    }
}

/// What has a meaning in a line is written as three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                all.push(code.into());
                all.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                all.push('\\');
                all.push_str(part);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_found_by_version_and_controller() {
        let mounts = Mounts::of(
            "proc /proc proc rw 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
             cgroup2 /elsewhere cgroup2 rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
             cgroup /a\\040b\\134 cgroup rw,memory 0 0\nshort\n",
        );
        assert_eq!(mounts.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        let cpu = Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts.of_controller("cpu"), cpu);
        assert_eq!(mounts.of_controller("cpuacct"), cpu);
        assert_eq!(mounts.of_controller("memory"), Some(Path::new("/a b\\")));
        assert_eq!(mounts.of_controller("pids"), None);
        assert_eq!(Mounts::of("").unified(), None);
    }
}
