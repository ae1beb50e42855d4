//! Docker's `config.json`, and podman's `auth.json`, which has the same form as far as it goes.

use super::{Credentials, Error};
use crate::bounded;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::regular;
use kvmlet_sys::temporary::Temporary;
use serde_json::{Map, Value, json};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// The longest file that is read.
const MAX_LENGTH: u64 = 4 << 20;

/// All that is in it: what is not understood is kept.
#[derive(Default)]
pub struct File(Map<String, Value>);

impl File {
    /// Reads one, if there is one.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Read {
            path: path.into(),
            source,
        };
        let file = match regular::open(path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let text = bounded::read(file, MAX_LENGTH).map_err(failed)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(Self::default()));
        }
        let shape = |source| Error::Shape {
            path: path.into(),
            source,
        };
        serde_json::from_slice(&text)
            .map(|all| Some(Self(all)))
            .map_err(shape)
    }

    /// The program that keeps a registry's, if one does.
    pub fn helper(&self, key: &str) -> Option<String> {
        let of_registry = self.0.get("credHelpers").and_then(|all| all.get(key));
        let name = of_registry.or_else(|| self.0.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| format!("docker-credential-{name}"))
    }

    /// What it has for a registry.
    pub fn get(&self, key: &str) -> Option<Credentials> {
        let entry = self.0.get("auths")?.get(key)?;
        let text = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        if let Some(token) = text("identitytoken") {
            return Some(Credentials::IdentityToken(token.into()));
        }
        if let (Some(user), Some(password)) = (text("username"), text("password")) {
            return Some(Credentials::Password {
                user: user.into(),
                password: password.into(),
            });
        }
        let decoded = STANDARD.decode(text("auth")?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Credentials::Password {
            user: user.into(),
            // Docker used to end it with zeros.
            password: password.trim_end_matches('\0').into(),
        })
    }

    /// Has it a registry's.
    pub fn put(&mut self, key: &str, user: &str, password: &str) {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        self.entry(key, json!({ "auth": auth }));
    }

    /// Has it that a helper has a registry's.
    pub fn note(&mut self, key: &str) {
        self.entry(key, json!({}));
    }

    fn entry(&mut self, key: &str, value: Value) {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[key] = value;
    }

    /// Forgets a registry's; tells whether there was anything.
    pub fn remove(&mut self, key: &str) -> bool {
        let auths = self.0.get_mut("auths").and_then(Value::as_object_mut);
        auths.is_some_and(|auths| auths.remove(key).is_some())
    }

    /// Writes it, for this user alone.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        // Where a link leads, as dotfiles tend to be.
        let path = &path.canonicalize().unwrap_or_else(|_| path.into());
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|source| Error::Directory {
            path: parent.into(),
            source,
        })?;
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        let write = || {
            let directory = Directory::open(parent)?;
            let mut new = Temporary::private(&directory)?;
            new.file().write_all(text.as_bytes())?;
            new.file().sync_all()?;
            new.publish(Path::new(path.file_name().unwrap_or_default()))
        };
        write().map_err(|source| {
            Error::Write(kvmlet_sys::whole_file::Error::Io {
                path: path.into(),
                source,
            })
        })
    }
}
