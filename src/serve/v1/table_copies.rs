//! What takes long: VMs that are saved and copied, and the operations that do that.

use super::copies::{CloneVm, RestoreVm, SnapshotVm};
use super::operations::{Operation, Operations};
use super::parts::{SECONDS, json, of_vm};
use super::route::{Act, Parameter, Route, Told};
use super::runs::RunVm;
use crate::http::Method;

const BEGUN: [Told; 1] = [json(
    202,
    "It is being done: by this it is watched",
    |all| all.subschema_for::<Operation>(),
)];
const TOLD: [Told; 1] = [json(200, "What is known of it now", |all| {
    all.subschema_for::<Operation>()
})];

/// An operation.
const fn of_operation(
    method: Method,
    path: &'static str,
    id: &'static str,
    about: &'static str,
    more: &'static str,
    act: Act,
) -> Route {
    Route {
        told: &TOLD,
        ..of_vm(method, path, id, about, more, act)
    }
}

/// All of them.
pub const COPIES: &[Route] = &[
    Route {
        body: Some(|all| all.subschema_for::<SnapshotVm>()),
        told: &BEGUN,
        problems: &[404, 409],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/snapshot",
            "snapshotVm",
            "Save a VM that runs to a file",
            "It runs on. The file has all of its guest's memory, keys and passwords among it; only this user can read it. Its disks are not in it.",
            Act::Snapshot,
        )
    },
    Route {
        told: &BEGUN,
        problems: &[404, 409],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/suspend",
            "suspendVm",
            "Put a VM that runs into a file, and give back what it has of the host",
            "The file is kvmlet's own, and goes when the VM is resumed or stopped. It has not ended: its name, disks and volumes are its own. One that \
             cannot be saved runs on, as it does when this is cancelled before it is done.",
            Act::Suspend,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<CloneVm>()),
        told: &BEGUN,
        problems: &[404, 409],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/clone",
            "cloneVm",
            "Have another VM go on from where one is now, which goes on, too",
            "The other has an id, addresses and a host name of its own. One that writes to disks is not cloned: those are not copied.",
            Act::Clone,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<RestoreVm>()),
        told: &BEGUN,
        problems: &[409],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/restore",
            "restoreVm",
            "Make a VM that goes on from a snapshot, and runs",
            "It has what the one that was saved was made with, and ids and addresses of its own.",
            Act::Restore,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<RunVm>()),
        told: &BEGUN,
        problems: &[409],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/run",
            "runVm",
            "Make a VM of an image, and start it",
            "As `kvmlet run --detach` does: the image is pulled where it is not here, volumes are made that are not there, and the operation is done when its service runs.",
            Act::Run,
        )
    },
    Route {
        told: &[json(200, "All that are known", |all| {
            all.subschema_for::<Operations>()
        })],
        problems: &[],
        ..of_operation(
            Method::Get,
            "/v1/operations",
            "listOperations",
            "What takes long",
            "Operations that this server has begun: those that are being done, and the last hundred of those that are over.",
            Act::Operations,
        )
    },
    of_operation(
        Method::Get,
        "/v1/operations/{id}",
        "getOperation",
        "What is known of an operation",
        "",
        Act::Operation,
    ),
    Route {
        query: &[Parameter {
            name: "timeout",
            about: "How many seconds are waited at most",
            schema: SECONDS,
            required: false,
        }],
        ..of_operation(
            Method::Get,
            "/v1/operations/{id}/wait",
            "waitOperation",
            "Wait until an operation is over",
            "A long poll: it is answered when that is so, or when the time is up.",
            Act::AwaitOperation,
        )
    },
    Route {
        problems: &[404, 504],
        ..of_operation(
            Method::Post,
            "/v1/operations/{id}/cancel",
            "cancelOperation",
            "End an operation, of which nothing is left then",
            "One that is over is left as it is. It is answered when that is so.",
            Act::CancelOperation,
        )
    },
];
