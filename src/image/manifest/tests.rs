//! Indexes as builders write them, and as they should not.

use super::*;
use std::collections::BTreeMap as Map;

/// Documents by their digests.
#[derive(Default)]
struct Layout(Map<Digest, Vec<u8>>);

impl Layout {
    fn add(&mut self, json: &str) -> Digest {
        let digest = Digest::of(json.as_bytes());
        self.0.insert(digest, json.into());
        digest
    }

    fn manifest(&mut self, layer: u8) -> Digest {
        let (config, layer) = (Digest([9; 32]), Digest([layer; 32]));
        self.add(&format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":2}},"layers":[{{"digest":"{layer}","size":3}}]}}"#
        ))
    }

    fn index(&mut self, entries: &[(Digest, &str)]) -> Digest {
        let entries: Vec<_> = entries
            .iter()
            .map(|(digest, more)| format!(r#"{{"digest":"{digest}","size":1{more}}}"#))
            .collect();
        self.add(&format!(r#"{{"manifests":[{}]}}"#, entries.join(",")))
    }

    fn find(&self, from: Digest) -> Result<Found, Error> {
        let from = Descriptor {
            media_type: String::new(),
            digest: from,
            size: 0,
            platform: None,
            annotations: Map::new(),
            urls: Vec::new(),
        };
        let mut fetch = |it: &Descriptor| Ok(self.0[&it.digest].clone());
        find(&from, &Platform::of_guests(), &mut fetch)
    }
}

fn platform(os: &str, architecture: &str, variant: &str) -> String {
    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#)
}

#[test]
fn the_platform_that_fits_best_is_taken() {
    let mut layout = Layout::default();
    let made: Vec<_> = (0..4).map(|it| layout.manifest(it)).collect();
    let unknown = platform("unknown", "unknown", "");
    let (v2, plain, arm) = (
        platform("linux", "amd64", "v2"),
        platform("linux", "amd64", ""),
        platform("linux", "arm64", "v8"),
    );
    let entries = [
        (made[0], &*unknown),
        (made[1], &*v2),
        (made[2], &*plain),
        (made[3], &*arm),
    ];
    let all = layout.index(&entries);
    assert_eq!(layout.find(all).unwrap().digest, made[2]);
    let nested = layout.index(&[(all, ""), (made[3], "")]);
    assert_eq!(layout.find(nested).unwrap().digest, made[2]);
    let newer = layout.index(&entries[..2]);
    assert_eq!(layout.find(newer).unwrap().digest, made[1]);
    assert_eq!(layout.find(made[3]).unwrap().manifest.layers.len(), 1);
    let others = layout.index(&[entries[0], entries[3]]);
    let error = layout.find(others).unwrap_err().to_string();
    assert_eq!(
        error,
        "no image for linux/amd64; there is one for linux/arm64/v8"
    );
    let attested = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
    let only = layout.index(&[(made[0], attested)]);
    let error = layout.find(only).unwrap_err().to_string();
    assert_eq!(
        error,
        "no image for linux/amd64; there is one for no platform"
    );
}

#[test]
fn what_is_hostile_ends() {
    let mut layout = Layout::default();
    let mut at = layout.manifest(0);
    for _ in 0..6 {
        at = layout.index(&[(at, "")]);
    }
    assert!(matches!(layout.find(at), Err(Error::Deep)));
    // Wide and deep, without anything that fits.
    let mut at = layout.index(&[]);
    for _ in 0..3 {
        at = layout.index(&[(at, ""); 100]);
    }
    assert!(matches!(layout.find(at), Err(Error::Deep)));
    let known = layout.manifest(1);
    layout.0.insert(known, b"{}".to_vec());
    assert!(matches!(layout.find(known), Err(Error::Mismatch { .. })));
    let refused = |json: &str| Document::parse(json.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused("[]"), "not a manifest of an image");
    assert_eq!(
        refused("{}"),
        "a document with neither layers nor manifests"
    );
    assert!(refused(r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
    assert!(refused(r#"{"manifests":[{"digest":"md5:00"}]}"#).contains("a digest"));
    let negative = format!(r#"{{"manifests":[{{"digest":"{known}","size":-1}}]}}"#);
    assert!(refused(&negative).contains("a size of a manifest: `-1`"));
    let layer = format!(r#"{{"digest":"{known}"}}"#);
    let many = vec![&*layer; MAX_LAYERS + 1].join(",");
    let long = format!(r#"{{"config":{layer},"layers":[{many}]}}"#);
    assert!(refused(&long).contains("1025 layers"));
    assert!(refused(&" ".repeat(5 << 20)).contains("more than 4194304"));
    let nulls =
        format!(r#"{{"config":{layer},"layers":[],"manifests":null,"schemaVersion":null}}"#);
    assert!(matches!(
        Document::parse(nulls.as_bytes()),
        Ok(Document::Manifest(_))
    ));
}
