//! Parts of the tables of all that can be asked for.

use super::model::Vm;
use super::route::{Act, Route, SchemaOf, Told};
use crate::http::{JSON, Method};

/// An answer in JSON.
pub const fn json(status: u16, about: &'static str, schema: SchemaOf) -> Told {
    Told {
        status,
        about,
        kind: JSON,
        schema: Some(schema),
    }
}

/// A VM.
pub const VM: SchemaOf = |all| all.subschema_for::<Vm>();
const TOLD_VM: [Told; 1] = [json(200, "What is known of it now", VM)];

/// Problems of what is asked of a guest.
pub const VAIN: &[u16] = &[404, 409, 422, 504];

/// One of a VM's.
pub const fn of_vm(
    method: Method,
    path: &'static str,
    id: &'static str,
    about: &'static str,
    more: &'static str,
    act: Act,
) -> Route {
    Route {
        method,
        path,
        id,
        about,
        more,
        query: &[],
        body: None,
        body_kind: JSON,
        told: &TOLD_VM,
        problems: &[404],
        act,
    }
}

/// How long somebody waits.
pub const SECONDS: &str = r#"{"type": "integer", "minimum": 0, "maximum": 300, "default": 30}"#;
