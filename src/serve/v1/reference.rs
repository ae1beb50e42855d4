//! `docs/api.md` is made of the document that the server tells, and is as that is.

use super::document;
use super::route::Route;
use super::table_alone::ALONE;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// Set by whoever wants the file written anew.
const WRITE: &str = "KVMLET_WRITE_REFERENCE";

const HEAD: &str = "\
# kvmlet's API

`kvmlet serve` answers HTTP/1.1 on a Unix socket, for all VMs of the user that runs it. It is optional, and no supervisor: VMs
that were made by it are those of `kvmlet ps`, and go on when it ends; those of `kvmlet run` are told, too.

```sh
kvmlet serve --socket /run/user/$UID/kvmlet.sock &
ask() { curl --silent --unix-socket /run/user/$UID/kvmlet.sock \"$@\"; }
ask -X PUT http://localhost/v1/vms/web -d '{\"config\": {\"root\": \"/srv/nginx.erofs\", \"memory\": \"256M\"}}'
ask -X POST http://localhost/v1/vms/web/start
ask -X POST http://localhost/v1/vms/shop/run -d '{\"image\": \"nginx\", \"publish\": [\"8080:80\"], \"volumes\": [\"data:/srv\"]}'
ask 'http://localhost/v1/events?since=0&follow=false'
ask -X POST http://localhost/v1/vms/shop/exec -d '{\"command\": [\"nginx\", \"-t\"]}'
ask 'http://localhost/v1/vms/shop/files?path=/etc/nginx' | tar -t
tar -c site | ask -T - 'http://localhost/v1/vms/shop/files?path=/srv'
```

Without `--socket` it is `api.sock` in the directory of the user's instances: `/var/lib/kvmlet` for root,
`$XDG_STATE_HOME/kvmlet` or `~/.local/state/kvmlet` for others.

- **Who may**: the socket is its user's alone (mode 0600), and processes of other users but root's are closed unheard.
- **How much**: 64 connections at a time, each with one request; who comes beside them gets the place of one that is idle, or
  that has been silent or slow for a second, or is answered 503 at once. A body has 262144 bytes at most, but for archives.
  16 of them may be told events. Beside them 32 programs and archives are on their way at a time, each with a connection of its own.
- **How often**: 2000 requests a second of each user, and 4000 at once after a pause; more are answered 429, with `Retry-After` in seconds.
- **Errors** are `application/problem+json` (RFC 9457) with more members: see `Problem` below. `retryable` says whether the same request may
  succeed a moment later. Each answer has a `Request-Id`.
- **Made twice**: `PUT` of the same description changes nothing and is answered 200, so that a client that was killed sends it again.
  Another description of that name is answered 409.
- **What takes long** is answered 202 with an operation, which a process of `kvmlet` does as if its verb had been typed: it is watched
  (`GET /v1/operations/{id}/wait`) and cancelled, and then nothing of it is left. It goes on when the server ends, which
  does not know it any more then. 8 are done at a time.
- **Nothing missed**: `GET /v1/events?since=N` tells what has happened since event N, and goes on; with `&follow=false` it ends there.

`GET /v1/openapi.json` is this page for programs (OpenAPI 3.1). Both are made from the table that requests are answered by:
`KVMLET_WRITE_REFERENCE=1 cargo test -p kvmlet-serve --lib reference`.

## One VM

```sh
kvmlet serve --vm SOCKET --socket one.sock &
curl --unix-socket one.sock -X POST http://localhost/v1/vm/pause
```

serves one VM by its control socket, which may be that of `kvmlet boot --control-fd` or of an instance (`control.sock` in its directory), and knows no book, but that a
snapshot which others in its user's have as their base stays (409). No
supervisor reads what clients send: this is a process of its own, which asks the supervisor as other programs do, and ends with the VM. Who may, how much, how often and how
errors are told is as above. `GET /v1/events` has the VM's states, numbered from when this server began; a snapshot is answered when it is whole, and is the file
that `kvmlet snapshot SOCKET` writes. [What can be asked](#requests-of-one-vm) is fewer things, in paths of their own.

A snapshot can go into a file that the client has open, or into memory, instead of one with a path of its own: the descriptor comes along with
a byte of the request, any of them (SCM_RIGHTS, unix(7)), and the body names it by its place among those that have come, `0`:

```python
saved = os.memfd_create(\"saved\")
body = b'{\"fd\": 0}'
head = b\"POST /v1/vm/snapshot HTTP/1.1\\r\\nHost: vm\\r\\nContent-Length: %d\\r\\n\\r\\n\" % len(body)
socket.send_fds(connection, [head + body], [saved])
```

It has to be a regular file, open for reading and writing, and empty: from a snapshot that is there a VM may go on, which has it mapped. It is empty again where the VM is not saved. One descriptor
may come along. Nothing else may have been asked on that connection meanwhile. What comes along with other requests is closed, and so is all that comes to the socket of `kvmlet serve` without `--vm`. A VM of the
book is begun by a process that has nothing but its description: `start`, its restart policy, `resume`, a clone, whoever asks, this server's end and the host's restart in between. Descriptors would have to be held by each of
them in turn, and a VM that has lost its own could never be started again; so disks, taps and snapshots have paths and names there.

A VM with disks and taps that are open already is a program's own: it [starts it](embedding.md) (`Disk::open`, `Net::open`) with a control socket, and `kvmlet serve --vm` serves that. When it ends, its descriptors are gone
with it, and nothing is left that could not be started.

## Programs with input

`POST /v1/vms/{name}/exec` with `Connection: Upgrade` and `Upgrade: kvmlet-exec` is answered 101 when the program runs, and anything else when it does
not. From then on both sides send frames: a byte that says what, three zeros, four bytes with the length (big endian), and as many bytes.
Frames of outputs are docker's, so that what reads those reads these.

| what | from | content |
|---|---|---|
| 0 | client | input; empty at its end, as which the end of what the client sends counts, too |
| 1 | server | standard output; all that is written to a terminal |
| 2 | server | standard error |
| 3 | client | the terminal's size: columns and rows, two bytes each (big endian) |
| 4 | client | a signal for the program and all of its process group, a byte |
| 5 | server | how it has ended, the last one: an [ExecLine](#execline), with `exit_code` and perhaps `signal` |
| 6 | server | why nobody knows that, the last one: a [Problem](#problem) |

A frame of a client has 65528 bytes at most. What the client does not read waits, and so does the program, as with a pipe. When the client closes the
connection the program is hung up (SIGHUP), as when a terminal's line is cut.
";

/// A bar would end a cell, and an empty line the table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let all: Vec<_> = any.iter().map(type_of).collect();
        return all.join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => match schema["items"].is_null() {
            true => "list".into(),
            false => format!("list of {}", type_of(&schema["items"])),
        },
        Value::String(kind) if schema["additionalProperties"].is_object() => {
            format!("{kind} of {}", type_of(&schema["additionalProperties"]))
        }
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds[0].as_str().unwrap().into(),
        _ => "any".into(),
    }
}

fn bounds(schema: &Value) -> String {
    let mut text = String::new();
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        write!(text, ", {least} to {most}").unwrap();
    }
    if !schema["default"].is_null() {
        write!(text, " [default: {}]", schema["default"]).unwrap();
    }
    text
}

fn operation(out: &mut String, method: &str, path: &str, told: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    writeln!(out, "\n### `{} {path}`\n", method.to_uppercase()).unwrap();
    writeln!(
        out,
        "{}",
        format!("{}. {}", text(&told["summary"]), text(&told["description"])).trim_end()
    )
    .unwrap();
    for parameter in told["parameters"].as_array().unwrap() {
        if parameter["in"] == "query" {
            let schema = &parameter["schema"];
            writeln!(
                out,
                "\n- `?{}=` ({}{}): {}",
                text(&parameter["name"]),
                type_of(schema),
                bounds(schema)
                    + match parameter["required"] == true {
                        true => ", required",
                        false => "",
                    },
                text(&parameter["description"])
            )
            .unwrap();
        }
    }
    for (kind, content) in told["requestBody"]["content"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let kind = match kind.as_str() {
            "application/json" => String::new(),
            kind => format!(", `{kind}`"),
        };
        writeln!(out, "\nBody: {}{kind}.", type_of(&content["schema"])).unwrap();
    }
    let mut problems = Vec::new();
    for (status, answer) in told["responses"].as_object().unwrap() {
        let content = answer["content"].as_object();
        let (kind, content) = match content.and_then(|all| all.iter().next()) {
            Some((kind, _)) if kind.contains("problem") => {
                problems.push(status.as_str());
                continue;
            }
            Some((kind, content)) => (kind.as_str(), content),
            None => ("", &Value::Null),
        };
        let lines = &content["x-line-schema"];
        let shown = match (kind, lines.is_null()) {
            ("", _) => String::new(),
            (_, false) => format!(": one {} a line", type_of(lines)),
            (_, true) => format!(": {}", type_of(&content["schema"])),
        };
        writeln!(
            out,
            "\n**{status}** {}{shown}",
            text(&answer["description"])
        )
        .unwrap();
    }
    writeln!(out, "\nProblems: {}.", problems.join(", ")).unwrap();
}

fn schema(out: &mut String, name: &str, schema: &Value) {
    writeln!(out, "\n### {name}\n").unwrap();
    writeln!(
        out,
        "{}\n",
        schema["description"].as_str().unwrap_or_default()
    )
    .unwrap();
    // One of some words, each with what it means.
    for word in schema["oneOf"].as_array().into_iter().flatten() {
        let about = word["description"].as_str().unwrap_or_default();
        writeln!(out, "- `{}`: {about}", word["const"].as_str().unwrap()).unwrap();
    }
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    writeln!(out, "| member | type | what it is |\n|---|---|---|").unwrap();
    for (key, value) in properties {
        let always = if required.iter().any(|name| name == key) {
            ""
        } else {
            ", may be left out"
        };
        let about = cell(value["description"].as_str().unwrap_or_default());
        let kind = cell(&(type_of(value) + &bounds(value)));
        writeln!(out, "| `{key}` | {kind}{always} | {about} |").unwrap();
    }
}

fn reference() -> String {
    let document = document();
    let mut out = String::from(HEAD);
    out.push_str("\n## Requests\n");
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, told) in methods.as_object().unwrap() {
            operation(&mut out, method, path, told);
        }
    }
    out.push_str("\n## Requests of one VM\n\nTo `kvmlet serve --vm`, whose `GET /v1/openapi.json` tells the rest.\n\n| request | |\n|---|---|\n");
    for route in ALONE.into_iter().flatten() {
        let Route {
            method,
            path,
            about,
            ..
        } = route;
        writeln!(out, "| `{} {path}` | {about} |", method.name()).unwrap();
    }
    out.push_str("\n## What is sent and told\n");
    for (name, told) in document["components"]["schemas"].as_object().unwrap() {
        schema(&mut out, name, told);
    }
    out
}

#[test]
fn the_reference_is_as_the_document_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let reference = reference();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == reference,
        "docs/api.md is stale: {WRITE}=1 cargo test -p kvmlet-serve --lib reference"
    );
}
