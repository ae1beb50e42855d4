//! docker, with a `dockerd` of the benchmark's own (and the containerd that it starts).

use super::engine::{Dialect, Engine, Place};
use super::image;
use crate::workshop::Programs;
use std::ffi::OsString;

/// `docker run` of a loaded image, without a network.
pub(super) fn engine(programs: &Programs) -> Engine {
    let dialect = Dialect {
        name: "docker",
        about: "docker run: dockerd, an image, namespaces, a cgroup, no network",
        program: "dockerd",
        install: "apt-get install docker.io (Debian, Ubuntu), dnf install moby-engine (Fedora)",
        daemon,
        settings: |_| None,
        client: |place| vec!["docker".into(), "--host".into(), socket(place)],
        load: &["load", "--quiet", "--input"],
        run: |_, id| {
            let words = [
                "run",
                "--rm",
                "--network",
                "none",
                "--name",
                id,
                image::NAME,
            ];
            words.map(str::to_owned).into()
        },
        remove: &[&["rm", "--force"]],
    };
    Engine::new(programs, dialect)
}

fn socket(place: &Place) -> OsString {
    let mut socket = OsString::from("unix://");
    socket.push(place.path("socket"));
    socket
}

fn daemon(place: &Place) -> Vec<OsString> {
    vec![
        "dockerd".into(),
        "--host".into(),
        socket(place),
        "--data-root".into(),
        place.path("data"),
        "--exec-root".into(),
        place.path("exec"),
        "--pidfile".into(),
        place.path("pid"),
        // Containers have no network, so none is made.
        "--bridge=none".into(),
        "--iptables=false".into(),
        "--ip6tables=false".into(),
        "--exec-opt".into(),
        "native.cgroupdriver=cgroupfs".into(),
        "--cgroup-parent".into(),
        format!("/{}", place.group).into(),
        "--log-level=error".into(),
    ]
}
