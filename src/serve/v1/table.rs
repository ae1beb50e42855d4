//! All that can be asked for: one table, of which requests are dispatched and the documentation is made.

use super::limits::{BalloonVm, LimitVm};
use super::model::{Capabilities, CreateVm, Event, LogEntry, VmList, Waited};
use super::parts::{SECONDS, VM, json, of_vm};
use super::route::{Act, LINES, OPEN_METRICS, Parameter, Route, Told};
use super::table_copies::COPIES;
use super::table_streams::STREAMS;
use crate::http::{JSON, Method};
use schemars::Schema;

/// Nothing is told.
pub const DONE: [Told; 1] = [Told {
    status: 204,
    about: "It is done",
    kind: JSON,
    schema: None,
}];
const BOOLEAN: &str = r#"{"type": "boolean", "default": false}"#;
const NUMBER: &str = r#"{"type": "integer", "minimum": 0, "maximum": 9007199254740991}"#;

/// All of them.
pub const TABLES: [&[Route]; 3] = [ROUTES, COPIES, STREAMS];

/// What the server can do.
pub const CAPABILITIES: Route = Route {
    told: &[json(200, "What this server can do", |all| {
        all.subschema_for::<Capabilities>()
    })],
    problems: &[],
    ..of_vm(
        Method::Get,
        "/v1/capabilities",
        "getCapabilities",
        "What this server can do",
        "",
        Act::Capabilities,
    )
};

/// What there is to know of it.
pub const OPEN_API: Route = Route {
    told: &[json(200, "This document", |_| Schema::from(true))],
    problems: &[],
    ..of_vm(
        Method::Get,
        "/v1/openapi.json",
        "getOpenApi",
        "This document",
        "OpenAPI 3.1, made from the same table and types that requests are answered by.",
        Act::OpenApi,
    )
};

/// Which events are told.
pub const SINCE: Parameter = Parameter {
    name: "since",
    about: "The number of the last event that is known: those behind it are told first, as far as they are kept. Without it only new ones are told",
    schema: NUMBER,
    required: false,
};

/// For how long.
pub const FOLLOW: Parameter = Parameter {
    name: "follow",
    about: "Whether the answer goes on with what happens, until the client closes it. With `false` it ends with what has happened",
    schema: r#"{"type": "boolean", "default": true}"#,
    required: false,
};

/// What a service is sent.
pub const SIGNAL: Parameter = Parameter {
    name: "signal",
    about: "The number of the signal: with 9 the VM's power is cut, and its end is waited for",
    schema: r#"{"type": "integer", "minimum": 1, "maximum": 64, "default": 9}"#,
    required: false,
};

/// How many seconds something may take.
pub const fn timeout(about: &'static str, schema: &'static str) -> Parameter {
    Parameter {
        name: "timeout",
        about,
        schema,
        required: false,
    }
}

/// Statistics.
pub const TOLD_STATS: [Told; 1] = [json(200, "What it has done so far", |_| {
    schemars::json_schema!({
        "type": "object",
        "description": "As `kvmlet boot --stats` writes it: docs/boot.md"
    })
})];

/// The same, for scrapers.
pub const TOLD_METRICS: [Told; 1] = [Told {
    status: 200,
    about: "What it has done so far, as OpenMetrics text",
    kind: OPEN_METRICS,
    schema: Some(|_| schemars::json_schema!({ "type": "string" })),
}];

const ROUTES: &[Route] = &[
    CAPABILITIES,
    OPEN_API,
    Route {
        told: &[Told {
            status: 200,
            about: "Events, one JSON object a line",
            kind: LINES,
            schema: Some(|all| all.subschema_for::<Event>()),
        }],
        query: &[SINCE, FOLLOW],
        problems: &[],
        ..of_vm(
            Method::Get,
            "/v1/events",
            "streamEvents",
            "What happens to VMs",
            "Each event has a number, one more than the one before. Whoever comes back with the number of the last one it has seen misses none, while they \
             are kept: the last 4000 at least.",
            Act::Events,
        )
    },
    Route {
        told: &[json(200, "All of them", |all| {
            all.subschema_for::<VmList>()
        })],
        problems: &[],
        ..of_vm(
            Method::Get,
            "/v1/vms",
            "listVms",
            "All VMs of this user",
            "",
            Act::List,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<CreateVm>()),
        told: &[
            json(201, "It was made", VM),
            json(200, "It was there, and is the same", VM),
        ],
        problems: &[409],
        ..of_vm(
            Method::Put,
            "/v1/vms/{name}",
            "createVm",
            "Make a VM of a description",
            "It is not started by that. The same description again changes nothing, and another one of a name that is taken is a conflict.",
            Act::Create,
        )
    },
    of_vm(
        Method::Get,
        "/v1/vms/{name}",
        "getVm",
        "What is known of a VM",
        "",
        Act::Tell,
    ),
    Route {
        query: &[
            Parameter {
                name: "force",
                about: "One that runs, too: its power is cut",
                schema: BOOLEAN,
                required: false,
            },
            Parameter {
                name: "volumes",
                about: "With the volumes that nobody has named, unless another VM has them",
                schema: BOOLEAN,
                required: false,
            },
        ],
        told: &DONE,
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Delete,
            "/v1/vms/{name}",
            "deleteVm",
            "Remove a VM, with all that is kept of it",
            "",
            Act::Delete,
        )
    },
    Route {
        problems: &[404, 409, 422],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/start",
            "startVm",
            "Start a VM, and wait until its service runs",
            "One that runs is left as it is.",
            Act::Start,
        )
    },
    Route {
        query: &[timeout(
            "How many seconds its service has to end, instead of what it was made with; with 0 the VM's power is cut at once",
            r#"{"type": "integer", "minimum": 0, "maximum": 4294967}"#,
        )],
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/stop",
            "stopVm",
            "Ask a VM to end, and wait until it has",
            "It is not started again by itself. One that does not run is as good as stopped.",
            Act::Stop,
        )
    },
    Route {
        query: &[SIGNAL],
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/kill",
            "killVm",
            "Send a VM's service a signal",
            "",
            Act::Kill,
        )
    },
    Route {
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/pause",
            "pauseVm",
            "Have a VM stand still",
            "Its vCPUs and devices do nothing until it is resumed. One that stands still already is left as it is.",
            Act::Pause,
        )
    },
    Route {
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Post,
            "/v1/vms/{name}/resume",
            "resumeVm",
            "Have a VM go on that stands still, or is suspended",
            "One that runs is left as it is, one that stood still when it was suspended goes on, and one that cannot go on stays suspended.",
            Act::Resume,
        )
    },
    Route {
        query: &[timeout("How many seconds are waited at most", SECONDS)],
        told: &[json(200, "What has come of it", |all| {
            all.subschema_for::<Waited>()
        })],
        ..of_vm(
            Method::Get,
            "/v1/vms/{name}/wait",
            "waitVm",
            "Wait until a VM has ended",
            "A long poll: it is answered when the run that there is has ended, or when the time is up.",
            Act::Wait,
        )
    },
    Route {
        query: &[
            Parameter {
                name: "tail",
                about: "How many entries, the last ones",
                schema: r#"{"type": "integer", "minimum": 0, "maximum": 10000, "default": 1000}"#,
                required: false,
            },
            Parameter {
                name: "console",
                about: "What the guest's kernel and init have said as well, and kvmlet itself",
                schema: BOOLEAN,
                required: false,
            },
        ],
        told: &[Told {
            status: 200,
            about: "Entries, one JSON object a line",
            kind: LINES,
            schema: Some(|all| all.subschema_for::<LogEntry>()),
        }],
        ..of_vm(
            Method::Get,
            "/v1/vms/{name}/logs",
            "getVmLogs",
            "What a VM has written",
            "",
            Act::Logs,
        )
    },
    Route {
        told: &TOLD_STATS,
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Get,
            "/v1/vms/{name}/stats",
            "getVmStats",
            "What a VM that runs has done so far",
            "",
            Act::Stats,
        )
    },
    Route {
        told: &TOLD_METRICS,
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Get,
            "/v1/vms/{name}/metrics",
            "getVmMetrics",
            "What a VM that runs has done so far, for scrapers",
            "",
            Act::Metrics,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<LimitVm>()),
        told: &DONE,
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Put,
            "/v1/vms/{name}/limits",
            "limitVm",
            "Limit a disk or an interface of a VM that runs",
            "It holds at once, until the VM ends.",
            Act::Limit,
        )
    },
    Route {
        body: Some(|all| all.subschema_for::<BalloonVm>()),
        told: &DONE,
        problems: &[404, 409, 504],
        ..of_vm(
            Method::Put,
            "/v1/vms/{name}/balloon",
            "setVmBalloon",
            "Have a VM that runs give memory back",
            "Its guest is asked, by the balloon that it was made with, and does that when it can.",
            Act::Balloon,
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_parameters_are_said_once() {
        for tables in [&TABLES[..], &super::super::table_alone::ALONE] {
            let routes = || tables.iter().copied().flatten();
            let mut ids: Vec<_> = routes().map(|route| route.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), routes().count());
            for parameter in routes().flat_map(|route| route.query) {
                let schema: serde_json::Value = serde_json::from_str(parameter.schema).unwrap();
                assert!(schema["type"].is_string(), "{}", parameter.name);
            }
        }
    }
}
