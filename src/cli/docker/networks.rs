//! Docker's networks, which are no interfaces here.

use crate::Failed;
use kvmlet_spec::{Net, Setting, is_interface_name};
use std::path::{Path, PathBuf};

/// What is no interface here, whose name docker has for the networks of a container.
const NETWORKS: &[(&str, &str)] = &[
    (
        "host",
        "the guest has a network of its own: `-p` publishes its ports, and `--net` alone gives it a way out",
    ),
    (
        "none",
        "leave it out: an instance has no network unless it is asked for one (`-p`, `--net`)",
    ),
    (
        "bridge",
        "`--net` alone, or `-p`, gives the guest an interface with addresses and a way out",
    ),
    (
        "default",
        "`--net` alone, or `-p`, gives the guest an interface with addresses and a way out",
    ),
];

/// Is the image what somebody meant for the value of a `--net`, which stands alone before it if `behind_net`? Or is an interface what
/// docker calls a network?
///
/// # Errors
/// When it is.
pub(crate) fn refuse_networks(image: &str, net: &[Net], behind_net: bool) -> Result<(), Failed> {
    let network = |name| NETWORKS.iter().find(|(known, _)| *known == name);
    if let Some((_, instead)) = network(image).filter(|_| behind_net) {
        let said = format!(
            "`--net {image}` is docker's: here the value of `--net` stands behind `=`, and `{image}` is taken for the image"
        );
        let help = format!("{instead}; an image of that name is `docker.io/library/{image}`");
        return Err(Failed::new(said).help(help));
    }
    if behind_net && could_be_value(image) {
        let said =
            format!("the value of `--net` stands behind `=`, and `{image}` is taken for the image");
        let help = format!("say `--net={image}`; an image of that name stands behind `--`");
        return Err(Failed::new(said).help(help));
    }
    // A tap may have such a name.
    let is_there = |tap: &str| interface(tap).exists();
    let taps = net.iter().filter_map(|net| net.tap.as_deref());
    let missing = taps.filter(|tap| !is_there(tap));
    match missing.filter_map(network).next() {
        None => Ok(()),
        Some((name, instead)) => {
            let said = format!("`--net={name}` is docker's, and there is no tap of that name");
            Err(Failed::new(said).help(*instead))
        }
    }
}

/// Would `--net` take it? By its first key, as a kind of interface, or as one that is here; a path of that name may have been meant where
/// nothing but the host's interfaces speaks against it.
fn could_be_value(word: &str) -> bool {
    let first = word.split([',', '=']).next().unwrap_or(word);
    let key = Setting::Nets.keys().find(|key| key.name() == first);
    match key {
        Some(key) => word != first || key.value().is_empty() || first == "tap",
        None if first == "passt" => true,
        None => {
            let path = Path::new(word);
            let is_interface = is_interface_name(first) && interface(first).exists();
            is_interface && word.parse::<Net>().is_ok() && path.symlink_metadata().is_err()
        }
    }
}

fn interface(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_docker_s_are_no_interfaces() {
        for (name, expected) in [
            ("host", "`-p` publishes"),
            ("none", "has no network unless"),
            ("bridge", "`--net` alone"),
        ] {
            let refused = |image: &str, net: &[Net], behind: bool| {
                refuse_networks(image, net, behind).unwrap_err().to_string()
            };
            // `--net host` is an interface and an image.
            let failed = refused(name, &[Net::default()], true);
            assert!(failed.contains(expected), "{failed}");
            assert!(failed.contains("stands behind `=`"), "{failed}");
            assert!(refuse_networks(name, &[], false).is_ok());
            let failed = refused("nginx", &[name.parse().unwrap()], false);
            assert!(failed.contains(expected), "{failed}");
            assert!(failed.contains("is docker's"), "{failed}");
        }
        assert!(refuse_networks("nginx", &[Net::default()], true).is_ok());
        assert!(refuse_networks("nginx", &["lo".parse().unwrap()], false).is_ok());
    }

    #[test]
    fn what_could_be_the_value_is_not_taken_for_an_image() {
        let refuse = |image: &str, behind| refuse_networks(image, &[Net::default()], behind);
        for word in [
            "vhost",
            "tap",
            "passt",
            "vhost,queues=2",
            "passt,mtu=1400",
            "egress=none",
            "mtu=x",
            "tap=tap1",
            "lo",
            "lo,vhost",
        ] {
            let failed = refuse(word, true).unwrap_err().to_string();
            assert!(failed.contains(&format!("`--net={word}`")), "{failed}");
            // Behind another flag, or behind `--`, it is an image.
            assert!(refuse(word, false).is_ok(), "{word}");
        }
        for image in [
            "nginx",
            "mtu",
            "egress",
            "./vhost",
            "vhost:1",
            "a,b.erofs",
            "web=1.erofs",
            "quay.io/team/passt",
            "../lo",
            "",
        ] {
            assert!(refuse(image, true).is_ok(), "{image}");
        }
    }
}
