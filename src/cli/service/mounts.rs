//! What a service has mounted beside its root, as docker's `-v`, `--mount`, `--tmpfs` and `--shm-size` say it.

mod parse;

use super::packing;
use crate::Failed;
use crate::volume::{self, DEFAULT_BYTES};
use clap::Args;
use kvmlet_image::config::ImageConfig;
use kvmlet_image::pack::Owners;
use kvmlet_manager::{Asked, Book, Instance, LockedVolumes, Mount, Note, Volume, VolumeName};
use kvmlet_spec::{Disk, DiskFormat};
use parse::{Place, Source, Wanted};
use std::path::{Path, PathBuf};

/// Flags about mounts.
#[derive(Args)]
pub(super) struct Mounts {
    /// Mount a volume, NAME:/PATH[:ro], made if there is none; /PATH alone is a new one that goes with the instance; DIR:/PATH:ro
    /// is what is in a directory of this host now. Can be given again.
    #[arg(short, long, value_name = "VOLUME", value_parser = parse::volume)]
    volume: Vec<Wanted>,
    /// The same in words: type=volume|tmpfs|bind,source=...,target=/PATH[,readonly][,volume-size=SIZE][,tmpfs-size=SIZE].
    #[arg(long, value_name = "KEYS", value_parser = parse::mount)]
    mount: Vec<Wanted>,
    /// Mount memory of the guest's: /PATH[:size=64m,mode=1777,uid=,gid=,exec,...].
    #[arg(long, value_name = "PATH", value_parser = parse::tmpfs)]
    tmpfs: Vec<Wanted>,
    /// How big /dev/shm is [default: half of the guest's memory].
    #[arg(long, value_name = "SIZE", value_parser = parse::shm)]
    shm_size: Option<u64>,
}

/// What was asked for, and the disks that it takes.
pub(super) struct Prepared {
    pub mounts: Vec<Mount>,
    /// One for each mount that is on a disk, with its serial number.
    pub disks: Vec<Disk>,
}

impl Mounts {
    /// Whether there is anything of volumes.
    pub fn takes_volumes(&self, image: Option<&ImageConfig>) -> bool {
        let mut all = self.volume.iter().chain(&self.mount);
        all.any(|wanted| matches!(wanted.source, Source::Volume { .. }))
            || image.is_some_and(|image| !image.volumes.is_empty())
    }

    /// All that is to be mounted: what is said here, and where that says nothing a volume without a name for each place that
    /// the image wants one at. What is mounted within another mount comes after that.
    fn wanted(&self, image: Option<&ImageConfig>) -> Result<Vec<Wanted>, Failed> {
        let all = self.volume.iter().chain(&self.mount).chain(&self.tmpfs);
        let mut all: Vec<Wanted> = all.cloned().collect();
        if let Some(twice) = Place::twice(all.iter().map(|wanted| &wanted.target)) {
            let text = format!("more than one thing is to be mounted at `{twice}`");
            return Err(Failed::new(text));
        }
        for place in image.into_iter().flat_map(|image| &image.volumes) {
            let wanted = parse::of_image(place).map_err(|why| {
                let place = place.escape_debug();
                Failed::in_vain(format!("the image asks for a volume at `{place}`"), why)
            })?;
            if !all.iter().any(|other| other.target == wanted.target) {
                all.push(wanted);
            }
        }
        all.sort_by_key(|wanted| wanted.target.depth());
        Ok(all)
    }

    /// Finds what is asked for, and makes volumes that are not there yet, which takes the lock on all of them.
    pub fn prepare(
        &self,
        book: &Book,
        volumes: Option<&LockedVolumes<'_>>,
        asked: &Asked,
        of_image: Option<&ImageConfig>,
    ) -> Result<Prepared, Failed> {
        let mut prepared = Prepared {
            mounts: Vec::new(),
            disks: Vec::new(),
        };
        for wanted in self.wanted(of_image)? {
            let serial = Mount::serial(prepared.mounts.len());
            let mount = match &wanted.source {
                Source::Volume {
                    name,
                    bytes,
                    filled,
                } => {
                    let volume = take(volumes, name.as_ref(), *bytes)?;
                    prepared
                        .disks
                        .push(disk(&volume.disk, wanted.read_only, &serial)?);
                    Mount::Volume {
                        name: volume.name,
                        target: wanted.target.to_string(),
                        read_only: wanted.read_only,
                        filled: *filled && !wanted.read_only,
                    }
                }
                Source::Directory(source) => {
                    let image = image(book.directory().path(), asked, &serial);
                    prepared.disks.push(disk(&image, true, &serial)?);
                    Mount::Directory {
                        source: directory(source)?,
                        target: wanted.target.to_string(),
                    }
                }
                Source::Tmpfs { flags, options } => Mount::Tmpfs {
                    target: wanted.target.to_string(),
                    flags: *flags,
                    options: options.clone(),
                },
            };
            prepared.mounts.push(mount);
        }
        prepared
            .mounts
            .extend(self.shm_size.map(|bytes| Mount::Shm { bytes }));
        Ok(prepared)
    }
}

/// Makes images of the directories that a new instance mounts.
pub(super) fn pack(instance: &Instance, mounts: &[Mount]) -> Result<(), Failed> {
    for (index, mount) in mounts.iter().enumerate() {
        if let Mount::Directory { source, .. } = mount {
            let image = format!("{}.erofs", Mount::serial(index));
            let image = instance.directory().path().join(image);
            // As they are: whose they are is what a mount shows.
            packing::pack(&image, Path::new(source), Owners::Kept)?;
        }
    }
    Ok(())
}

/// Where the image of a directory is going to be for an instance.
fn image(book: &Path, asked: &Asked, serial: &str) -> PathBuf {
    let own = book.join("instances").join(asked.id.as_str());
    own.join(format!("{serial}.erofs"))
}

fn disk(path: &Path, read_only: bool, serial: &str) -> Result<Disk, Failed> {
    let disk = match read_only {
        true => Disk::read_only(path),
        false => Disk::read_write(path),
    };
    Ok(Disk {
        id: Some(serial.to_owned().try_into().map_err(Failed::new)?),
        // Its guest writes to it, and it may look like anything.
        format: Some(DiskFormat::Raw),
        ..disk
    })
}

/// The volume of that name, made if there is none; a new one without a name.
fn take(
    volumes: Option<&LockedVolumes<'_>>,
    name: Option<&VolumeName>,
    bytes: Option<u64>,
) -> Result<Volume, Failed> {
    let volumes = volumes.ok_or_else(|| Failed::new("no volumes are held"))?;
    match name {
        Some(name) => volume::make(volumes, name, bytes, || Note::new(false)),
        None => {
            let name = VolumeName::random().map_err(Failed::new)?;
            let bytes = Some(bytes.unwrap_or(DEFAULT_BYTES));
            volume::make(volumes, &name, bytes, || Note::new(true))
        }
    }
}

/// The path of a directory of this host that is there.
fn directory(source: &Path) -> Result<String, Failed> {
    let failed = |error| {
        Failed::in_vain(
            format!("cannot mount what is in `{}`", source.display()),
            error,
        )
    };
    let found = source.canonicalize().map_err(failed)?;
    if !found.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into())
            .help("name the directory that the file is in, or copy it there when the service runs: `kvmlet cp`"));
    }
    let text = found.into_os_string().into_string();
    text.map_err(|_| Failed::new(format!("the path of `{}` is not UTF-8", source.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mounts: Mounts,
    }

    /// Where which named volumes are mounted; `-` for one without a name.
    fn mounted(words: &[&str], volumes: &[&str]) -> Vec<String> {
        let words = std::iter::once(&"run").chain(words);
        let line = Line::try_parse_from(words).unwrap();
        let places: Vec<String> = volumes.iter().map(|it| format!("\"{it}\": {{}}")).collect();
        let json = format!(
            r#"{{"architecture": "amd64", "os": "linux", "config": {{"Volumes": {{{}}}}}, "rootfs": {{"type": "layers", "diff_ids": []}}}}"#,
            places.join(", ")
        );
        let image = ImageConfig::parse(json.as_bytes()).unwrap();
        if let Err(failed) = line.mounts.wanted(Some(&image)) {
            return vec![failed.to_string()];
        }
        assert_eq!(
            line.mounts.takes_volumes(Some(&image)),
            !line.mounts.wanted(Some(&image)).unwrap().is_empty()
        );
        let all = line.mounts.wanted(Some(&image)).unwrap();
        let said = all.iter().map(|wanted| match &wanted.source {
            Source::Volume { name, .. } => {
                let name = name.as_ref().map_or("-", VolumeName::as_str);
                format!("{name} {}", wanted.target)
            }
            other => format!("{other:?} {}", wanted.target),
        });
        said.collect()
    }

    #[test]
    fn an_image_has_volumes_where_nothing_else_is_mounted() {
        let none: [String; 0] = [];
        assert_eq!(mounted(&[], &[]), none);
        assert_eq!(mounted(&[], &["/b/c", "/a"]), ["- /a", "- /b/c"]);
        let words = ["-v", "data:/b/c", "-v", "more:/b"];
        let expected = ["more /b", "- /a", "data /b/c"];
        assert_eq!(mounted(&words, &["/b/c/", "/a"]), expected);
    }

    #[test]
    fn an_image_names_places_and_nothing_of_the_host() {
        assert_eq!(
            mounted(&[], &["/etc:/mnt:ro", "/b:/c", "/d:nocopy"]),
            ["- /d:nocopy", "- /b:/c", "- /etc:/mnt:ro"]
        );
    }

    #[test]
    fn an_image_that_wants_a_volume_where_none_can_be_is_refused_by_that() {
        for (place, why) in [
            ("/", "nothing is mounted over the root"),
            ("/x/..", "nothing is mounted over the root"),
            ("proc", "nothing is mounted over `/proc`"),
            ("/sys//", "nothing is mounted over `/sys`"),
            ("/dev/.", "nothing is mounted over `/dev`"),
        ] {
            let [said] = &mounted(&[], &[place])[..] else {
                panic!("{place} is taken");
            };
            assert!(
                said.contains("error: the image asks for a volume at `/") && said.contains(why),
                "{place}: {said}"
            );
        }
        assert_eq!(
            mounted(&[], &["/dev/x", "/processes"]),
            ["- /processes", "- /dev/x"]
        );
    }
}
