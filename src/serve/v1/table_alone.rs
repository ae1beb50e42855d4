//! All that can be asked for at the server of one VM, which may be in no book.

use super::alone::{AloneVm, AloneWaited};
use super::history::Change;
use super::limits::{BalloonVm, LimitVm};
use super::parts::{SECONDS, json, of_vm};
use super::route::{Act, LINES, Route, SchemaOf, Told};
use super::saving::{SaveVm, SavedVm};
use super::table::{
    CAPABILITIES, DONE, FOLLOW, OPEN_API, SIGNAL, SINCE, TOLD_METRICS, TOLD_STATS, timeout,
};
use crate::http::Method;

/// All of them.
pub const ALONE: [&[Route]; 1] = [ROUTES];

const VM: SchemaOf = |all| all.subschema_for::<AloneVm>();
const TOLD: [Told; 1] = [json(200, "What is known of it now", VM)];

/// One that is asked of the VM.
const fn of_it(
    method: Method,
    path: &'static str,
    id: &'static str,
    about: &'static str,
    act: Act,
) -> Route {
    Route {
        told: &TOLD,
        problems: &[404, 409, 504],
        ..of_vm(method, path, id, about, "", act)
    }
}

const ROUTES: &[Route] = &[
    CAPABILITIES,
    OPEN_API,
    Route {
        told: &[Told {
            status: 200,
            about: "Changes, one JSON object a line",
            kind: LINES,
            schema: Some(|all| all.subschema_for::<Change>()),
        }],
        query: &[SINCE, FOLLOW],
        problems: &[],
        ..of_it(
            Method::Get,
            "/v1/events",
            "streamEvents",
            "What the VM does, and its end",
            Act::Events,
        )
    },
    of_it(
        Method::Get,
        "/v1/vm",
        "getVm",
        "What is known of the VM",
        Act::Tell,
    ),
    of_it(
        Method::Post,
        "/v1/vm/pause",
        "pauseVm",
        "Have the VM stand still",
        Act::Pause,
    ),
    of_it(
        Method::Post,
        "/v1/vm/resume",
        "resumeVm",
        "Have the VM go on that stands still",
        Act::Resume,
    ),
    Route {
        query: &[timeout(
            "How many seconds its guest has to end, instead of what it was made with; with 0 the VM's power is cut at once",
            r#"{"type": "integer", "minimum": 0, "maximum": 4294967}"#,
        )],
        ..of_it(
            Method::Post,
            "/v1/vm/stop",
            "stopVm",
            "Ask the VM to end, and wait until it has",
            Act::Stop,
        )
    },
    Route {
        query: &[SIGNAL],
        ..of_it(
            Method::Post,
            "/v1/vm/kill",
            "killVm",
            "Send the VM's service a signal",
            Act::Kill,
        )
    },
    Route {
        query: &[timeout("How many seconds are waited at most", SECONDS)],
        told: &[json(200, "What has come of it", |all| {
            all.subschema_for::<AloneWaited>()
        })],
        ..of_it(
            Method::Get,
            "/v1/vm/wait",
            "waitVm",
            "Wait until the VM has ended",
            Act::Wait,
        )
    },
    Route {
        told: &TOLD_STATS,
        ..of_it(
            Method::Get,
            "/v1/vm/stats",
            "getVmStats",
            "What the VM has done so far",
            Act::Stats,
        )
    },
    Route {
        told: &TOLD_METRICS,
        ..of_it(
            Method::Get,
            "/v1/vm/metrics",
            "getVmMetrics",
            "What the VM has done so far, for scrapers",
            Act::Metrics,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<LimitVm>()),
        told: &DONE,
        ..of_it(
            Method::Put,
            "/v1/vm/limits",
            "limitVm",
            "Limit a disk or an interface",
            Act::Limit,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<BalloonVm>()),
        told: &DONE,
        ..of_it(
            Method::Put,
            "/v1/vm/balloon",
            "setVmBalloon",
            "Have the VM give memory back",
            Act::Balloon,
        )
    },
    Route {
        more: "A descriptor comes along (SCM_RIGHTS, unix(7)) with any byte of its request, on a connection on which nothing else was asked meanwhile. One may; more are closed, and the request is refused. What comes along with other requests is closed.",
        body: Some(|all| all.subschema_for::<SaveVm>()),
        told: &[json(200, "It is whole, and on the disk", |all| {
            all.subschema_for::<SavedVm>()
        })],
        problems: &[404, 409, 422, 504],
        ..of_it(
            Method::Post,
            "/v1/vm/snapshot",
            "snapshotVm",
            "Save the VM to a file, while it runs on",
            Act::Snapshot,
        )
    },
];
