//! containerd's own client, with a `containerd` of the benchmark's own.

use super::engine::{Dialect, Engine, Place};
use super::image;
use crate::workshop::Programs;

/// `ctr run` of an imported image, without a network.
pub(super) fn engine(programs: &Programs) -> Engine {
    let dialect = Dialect {
        name: "ctr",
        about: "containerd's ctr run: an image, runc with a shim, namespaces, a cgroup, no network",
        program: "ctr",
        install: "apt-get install containerd (Debian, Ubuntu), dnf install containerd (Fedora)",
        daemon: |place| vec!["containerd".into(), "--config".into(), place.path(SETTINGS)],
        settings: |place| Some((SETTINGS, settings(place))),
        client: |place| {
            vec![
                "ctr".into(),
                "--address".into(),
                place.path("socket"),
                "--namespace".into(),
                place.group.clone().into(),
            ]
        },
        load: &["images", "import"],
        run: |_, id| {
            // Names of images are whole ones here.
            let image = format!("docker.io/{}", image::NAME);
            ["run", "--rm", &image, id].map(str::to_owned).into()
        },
        remove: &[&["tasks", "delete", "--force"], &["containers", "delete"]],
    };
    Engine::new(programs, dialect)
}

const SETTINGS: &str = "config.toml";

fn settings(place: &Place) -> String {
    let path = |name| place.directory.join(name).display().to_string();
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
        path("root"),
        path("state"),
        path("socket"),
    )
}
