//! Docker's networks, which are no interfaces here.

use crate::Failed;
use kvmlet_spec::Net;
use std::path::Path;

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

/// Is the image what somebody meant for the value of a `--net`, which is taken for one that stands alone? Or is an interface what
/// docker calls a network?
///
/// # Errors
/// When it is.
pub(crate) fn refuse_networks(image: &str, net: &[Net]) -> Result<(), Failed> {
    let network = |name| NETWORKS.iter().find(|(known, _)| *known == name);
    if let Some((_, instead)) = network(image).filter(|_| net.contains(&Net::default())) {
        let said = format!(
            "`--net {image}` is docker's: here the value of `--net` stands behind `=`, and `{image}` is taken for the image"
        );
        let help = format!("{instead}; an image of that name is `docker.io/library/{image}`");
        return Err(Failed::new(said).help(help));
    }
    // A tap may have such a name.
    let is_there = |tap: &str| Path::new("/sys/class/net").join(tap).exists();
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
            let refused =
                |image: &str, net: &[Net]| refuse_networks(image, net).unwrap_err().to_string();
            // `--net host` is an interface and an image.
            let failed = refused(name, &[Net::default()]);
            assert!(failed.contains(expected), "{failed}");
            assert!(failed.contains("stands behind `=`"), "{failed}");
            assert!(refuse_networks(name, &[]).is_ok());
            let failed = refused("nginx", &[name.parse().unwrap()]);
            assert!(failed.contains(expected), "{failed}");
            assert!(failed.contains("is docker's"), "{failed}");
        }
        assert!(refuse_networks("nginx", &[Net::default()]).is_ok());
        assert!(refuse_networks("nginx", &["lo".parse().unwrap()]).is_ok());
    }
}
