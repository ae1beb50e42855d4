//! Images made for tests: archives, configurations, manifests, and all of it as a registry or a layout on disk has it.

use crate::server::{Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

/// Bytes that do not compress, the same for a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An archive of these files.
pub fn layer(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, content) in files {
        let mut block = [0_u8; 512];
        let mut put =
            |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, "0000755");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "14526012000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&block);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

/// What a registry has: blobs and manifests by their digests, and tags.
#[derive(Clone, Default)]
pub struct Content {
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// With their media types.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
}

impl Content {
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }

    /// A manifest or an index by its digest, and by a tag if there is one.
    pub fn document(&mut self, tag: Option<&str>, media_type: &str, document: &Value) -> Value {
        self.text(tag, media_type, document.to_string().into_bytes())
    }

    pub fn text(&mut self, tag: Option<&str>, media_type: &str, text: Vec<u8>) -> Value {
        let digest = digest(&text);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": text.len()});
        for name in tag.into_iter().chain([&*digest]) {
            self.manifests
                .insert(name.into(), (media_type.into(), text.clone()));
        }
        descriptor
    }

    /// An image of these layers; its descriptor.
    pub fn image(&mut self, tag: Option<&str>, architecture: &str, layers: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": {"Cmd": ["/bin/service"], "Labels": {"made": "here"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "made by a test"}],
        });
        let config = self.blob(CONFIG, config.to_string().into_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob(LAYER, layer.clone()))
            .collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.document(tag, MANIFEST, &manifest)
    }

    /// As a registry answers.
    pub fn answer(&self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap();
        if path == "/v2/" {
            return Response::new(200, "{}");
        }
        let last = path.rsplit('/').next().unwrap();
        if path.contains("/manifests/") {
            return match self.manifests.get(last) {
                Some((media_type, text)) => {
                    Response::new(200, text.clone()).header("Content-Type", media_type)
                }
                None => Response::new(
                    404,
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ),
            };
        }
        match self.blobs.get(last) {
            Some(blob) => match request.from() {
                0 => Response::new(200, blob.clone()),
                from => Response::new(206, &blob[from..]),
            },
            None => Response::new(404, "{}"),
        }
    }

    /// As an OCI layout.
    pub fn write(&self, at: &Path) {
        let blobs = at.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        }
        let mut entries = Vec::new();
        for (name, (media_type, text)) in &self.manifests {
            let digest = digest(text);
            fs::write(blobs.join(&digest[7..]), text).unwrap();
            if !name.contains(':') {
                entries.push(json!({
                    "mediaType": media_type, "digest": digest, "size": text.len(),
                    "annotations": {"org.opencontainers.image.ref.name": name},
                }));
            }
        }
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fs::write(at.join("index.json"), index.to_string()).unwrap();
    }
}
