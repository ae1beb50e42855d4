//! podman with a storage of its own.

use crate::made::Made;
use crate::ours::run;
use crate::tarball::Tarball;
use kvmlet_image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Podman(PathBuf);

/// As `docker save` writes images: one archive of all, which takes one process.
fn archive(stacks: &[Vec<Made>]) -> Vec<u8> {
    let mut made = Tarball::default();
    let mut manifest = Vec::new();
    for (number, stack) in stacks.iter().enumerate() {
        let mut add = |bytes: &[u8], end: &str| {
            let name = format!("{}{end}", Digest::of(bytes).hex());
            made.file(&name, bytes);
            format!("\"{name}\"")
        };
        let layers: Vec<_> = stack
            .iter()
            .map(|layer| add(&layer.orderly, ".tar"))
            .collect();
        let ids: Vec<_> = stack
            .iter()
            .map(|layer| format!("\"{}\"", Digest::of(&layer.orderly)))
            .collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}},"config":{{"Labels":{{"number":"{number}"}}}}}}"#,
            ids.join(",")
        );
        let config = add(config.as_bytes(), ".json");
        manifest.push(format!(
            r#"{{"Config":{config},"RepoTags":["localhost/stack:{number}"],"Layers":[{}]}}"#,
            layers.join(",")
        ));
    }
    made.file(
        "manifest.json",
        format!("[{}]", manifest.join(",")).as_bytes(),
    );
    made.finish()
}

impl Podman {
    pub fn new(place: &Path) -> Self {
        fs::create_dir(place).unwrap();
        Self(place.to_path_buf())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (flag, place) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(flag).arg(self.0.join(place));
        }
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command
            .current_dir(&self.0)
            .env("TMPDIR", &self.0)
            .env("HOME", &self.0);
        command
    }

    /// Reads all stacks; where each of them is mounted.
    pub fn load(&self, stacks: &[Vec<Made>]) -> Vec<PathBuf> {
        let file = self.0.join("archive");
        fs::write(&file, archive(stacks)).unwrap();
        run(&mut self.command(&["load", "-q", "-i", "archive"]));
        fs::remove_file(&file).unwrap();
        let names: Vec<_> = (0..stacks.len())
            .map(|number| format!("localhost/stack:{number}"))
            .collect();
        let mut arguments = vec!["image", "mount"];
        arguments.extend(names.iter().map(|name| &name[..]));
        let told = run(&mut self.command(&arguments));
        let place = |name: &String| {
            let mut places = told
                .lines()
                .filter_map(|line| line.split_once(char::is_whitespace));
            // A single one is told without its name.
            let found = places.find(|(of, _)| of == name).map(|it| it.1.trim());
            PathBuf::from(found.unwrap_or_else(|| told.trim()))
        };
        names.iter().map(place).collect()
    }

    pub fn remove(self) {
        fs::remove_dir_all(self.0).unwrap();
    }
}
