//! What can be asked for that goes on as long as it likes.

use super::parts::{VAIN, of_vm};
use super::route::{Act, LINES, Parameter, Route, Told};
use super::streams::{ARCHIVE, ExecLine, ExecVm};
use crate::http::{JSON, Method};

const PATH: &str =
    r#"{"type": "string", "minLength": 1, "maxLength": 4095, "pattern": "^/[^\u0000]*$"}"#;

/// All of them.
pub const STREAMS: &[Route] = &[
    Route {
        body: Some(|all| all.subschema_for::<ExecVm>()),
        told: &[
            Told {
                status: 101,
                about: "It runs, and what follows are frames, as docs/api.md tells",
                kind: JSON,
                schema: None,
            },
            Told {
                status: 200,
                about: "It runs, and this is what it writes: one JSON object a line, the last one with how it has ended",
                kind: LINES,
                schema: Some(|all| all.subschema_for::<ExecLine>()),
            },
        ],
        problems: VAIN,
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/exec",
            "execVm",
            "Run a program beside a VM's service",
            "As `kvmlet exec` does. With `Connection: Upgrade` and `Upgrade: kvmlet-exec` the answer is 101, and both sides speak in frames from then on; \
             without, what the program writes is told in lines, and it has no input. It is hung up (SIGHUP) when the client closes the connection.",
            Act::Exec,
        )
    },
    Route {
        query: &[Parameter {
            name: "path",
            about: "What, from the guest's root on. A directory that ends in `/.` is told without its name",
            schema: PATH,
            required: true,
        }],
        told: &[Told {
            status: 200,
            about: "An archive of tar, with owners, modes and times. One that ends before its last chunk was cut off",
            kind: ARCHIVE,
            schema: Some(binary),
        }],
        problems: VAIN,
        ..of_vm(
            Method::Get,
            "/v1/vms/{name}/files",
            "getVmFiles",
            "Read files of a VM that runs",
            "As `kvmlet cp NAME:PATH -` does: a file, or a directory with all that is in it. It is what the guest says, which may be anything: \
             unpack it as what a stranger has sent.",
            Act::ReadFiles,
        )
    },
    Route {
        query: &[
            Parameter {
                name: "path",
                about: "The directory that they go into, which is there, from the guest's root on",
                schema: PATH,
                required: true,
            },
            Parameter {
                name: "owners",
                about: "Owners, modes and attributes are as the archive has them. Otherwise files are root's",
                schema: r#"{"type": "boolean", "default": false}"#,
                required: false,
            },
        ],
        body: Some(binary),
        body_kind: ARCHIVE,
        told: &[Told {
            status: 204,
            about: "It is done",
            kind: JSON,
            schema: None,
        }],
        problems: VAIN,
        ..of_vm(
            Method::Put,
            "/v1/vms/{name}/files",
            "putVmFiles",
            "Write files into a VM that runs",
            "As `kvmlet cp - NAME:PATH` does, of an archive of tar, of any length: with `Content-Length`, or in chunks. What was written by then stays \
             when it fails.",
            Act::WriteFiles,
        )
    },
];

fn binary(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "format": "binary" })
}
