//! podman, which needs no daemon.

use super::engine::{Dialect, Engine};
use super::image;
use crate::workshop::Programs;

/// `podman run` of a loaded image, without a network.
pub(super) fn engine(programs: &Programs) -> Engine {
    let dialect = Dialect {
        name: "podman",
        about: "podman run: an image, namespaces, a cgroup, no network",
        program: "podman",
        install: "apt-get install podman (Debian, Ubuntu), dnf install podman (Fedora)",
        daemon: |_| Vec::new(),
        settings: |_| None,
        client: |place| {
            vec![
                "podman".into(),
                "--root".into(),
                place.path("root"),
                // podman takes 50 bytes at most.
                "--runroot".into(),
                place.path("r"),
                "--tmpdir".into(),
                place.path("tmp"),
                // systemd's would ask for a session of systemd's.
                "--cgroup-manager=cgroupfs".into(),
                "--events-backend=none".into(),
            ]
        },
        load: &["load", "--quiet", "--input"],
        run: |place, id| {
            let group = format!("/{}", place.group);
            // Without limits given, podman raises some, which takes more than root may have.
            let words = [
                "run",
                "--rm",
                "--pull=never",
                "--network",
                "none",
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=4096:4096",
                "--cgroup-parent",
                &group,
                "--name",
                id,
                image::NAME,
            ];
            words.map(str::to_owned).into()
        },
        remove: &[&["rm", "--force", "--time", "0"]],
    };
    Engine::new(programs, dialect)
}
