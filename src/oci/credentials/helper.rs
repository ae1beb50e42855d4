//! Programs that keep passwords: `docker-credential-NAME`, which are asked over standard input (docker-credential-helpers).

use super::{Credentials, Error};
use serde::Deserialize;
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The longest answer.
const MAX_LENGTH: u64 = 1 << 20;
/// What it says when it has nothing, on standard output.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    username: String,
    secret: String,
}

/// What it has for a registry.
pub fn get(program: &str, key: &str, named_in: &Path) -> Result<Option<Credentials>, Error> {
    let Some(answer) = ask(program, "get", key.as_bytes(), named_in)? else {
        return Ok(None);
    };
    let found: Found = serde_json::from_slice(&answer)
        .map_err(|_| failed(program, named_in, "does not answer in JSON".into()))?;
    Ok(Some(match &*found.username {
        "<token>" => Credentials::IdentityToken(found.secret),
        _ => Credentials::Password {
            user: found.username,
            password: found.secret,
        },
    }))
}

/// Has it keep one.
pub fn store(
    program: &str,
    key: &str,
    user: &str,
    password: &str,
    named_in: &Path,
) -> Result<(), Error> {
    let told = json!({ "ServerURL": key, "Username": user, "Secret": password });
    ask(program, "store", told.to_string().as_bytes(), named_in).map(drop)
}

/// Has it forget one; tells whether it had it.
pub fn erase(program: &str, key: &str, named_in: &Path) -> Result<bool, Error> {
    if ask(program, "get", key.as_bytes(), named_in)?.is_none() {
        return Ok(false);
    }
    ask(program, "erase", key.as_bytes(), named_in).map(|answer| answer.is_some())
}

fn failed(program: &str, path: &Path, why: String) -> Error {
    Error::Helper {
        program: program.into(),
        path: path.into(),
        why,
    }
}

/// What it answers; nothing if it has no such thing.
fn ask(program: &str, verb: &str, told: &[u8], named_in: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |why: String| failed(program, named_in, why);
    // The name is part of a program's, and no path.
    if program.contains('/') {
        return Err(failed("is a path".into()));
    }
    let mut child = Command::new(program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // If it does not read to the end, its exit code tells why.
        let _ = input.write_all(told);
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        let read = output.take(MAX_LENGTH).read_to_end(&mut answer);
        read.map_err(|error| failed(format!("cannot be read: {error}")))?;
    }
    let status = child
        .wait()
        .map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if status.success() {
        return Ok(Some(answer));
    }
    let said = String::from_utf8_lossy(&answer);
    match said.contains(NOT_FOUND) {
        true => Ok(None),
        false => Err(failed(format!("ends with {status}: {}", said.trim()))),
    }
}
