//! The documentation of the API, made from the table of routes and from the types that are sent.

use super::call::Call;
use super::problem::{KIND as PROBLEM, Problem, TOO_OFTEN};
use super::route::{Act, LINES, OF_ALL, Route, Told};
use super::table::TABLES;
use crate::http::Answer;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

/// Where the schemas of types are in the document.
const SCHEMAS: &str = "/components/schemas";

/// Tells it.
pub fn tell(call: &Call) -> Result<Answer, Problem> {
    Ok(Answer::told(document(call.subject.tables()).to_string()))
}

/// The schemas of what is sent, and of what is told.
struct Schemas {
    sent: SchemaGenerator,
    told: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = SCHEMAS.into();
            settings
        };
        Self {
            sent: settings().into_generator(),
            told: settings().for_serialize().into_generator(),
        }
    }

    fn problem(&mut self, status: u16) -> Value {
        let schema = self.told.subschema_for::<Problem>();
        let mut headers = request_id();
        if status == TOO_OFTEN.2 {
            let seconds = json!({ "type": "integer", "minimum": 1 });
            headers["Retry-After"] = json!({ "description": "Seconds", "schema": seconds });
        }
        json!({
            "description": meaning(status),
            "headers": headers,
            "content": { PROBLEM: { "schema": schema } },
        })
    }

    fn told(&mut self, told: &Told) -> Value {
        let mut answer = json!({ "description": told.about, "headers": request_id() });
        let schema = told.schema.map(|schema| schema(&mut self.told));
        match (schema, told.kind) {
            (None, _) => {}
            (Some(schema), LINES) => {
                // OpenAPI 3.1 has no word for lines: the schema of one is told beside it.
                let text = json!({ "type": "string" });
                answer["content"] = json!({ LINES: { "schema": text, "x-line-schema": schema } });
            }
            (Some(schema), kind) => answer["content"] = json!({ kind: { "schema": schema } }),
        }
        answer
    }

    fn operation(&mut self, route: &Route) -> Value {
        let mut parameters = Vec::new();
        if route.path.contains("{name}") {
            parameters.push(json!({
                "name": "name", "in": "path", "required": true,
                "description": "Its name, its id, or the beginning of its id",
                "schema": { "type": "string", "maxLength": 200, "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$" },
            }));
        }
        if route.path.contains("{id}") {
            parameters.push(json!({
                "name": "id", "in": "path", "required": true,
                "description": "Its id",
                "schema": { "type": "string", "maxLength": 200, "pattern": "^[0-9a-f]+$" },
            }));
        }
        for parameter in route.query {
            // The table's own text, which a test has read.
            let schema: Value = serde_json::from_str(parameter.schema).unwrap_or(true.into());
            parameters.push(json!({
                "name": parameter.name, "in": "query", "required": parameter.required,
                "description": parameter.about, "schema": schema,
            }));
        }
        let mut answers = Map::new();
        for told in route.told {
            let mut answer = self.told(told);
            if route.act == Act::Create {
                answer["links"] = links();
            }
            answers.insert(told.status.to_string(), answer);
        }
        for status in OF_ALL.iter().chain(route.problems) {
            answers.insert(status.to_string(), self.problem(*status));
        }
        let mut operation = json!({
            "operationId": route.id,
            "summary": route.about,
            "parameters": parameters,
            "responses": answers,
        });
        if !route.more.is_empty() {
            operation["description"] = route.more.into();
        }
        if let Some(body) = route.body {
            let schema = body(&mut self.sent);
            let mut content = json!({ "schema": schema });
            if route.act == Act::Create {
                content["example"] = example();
            }
            operation["requestBody"] =
                json!({ "required": true, "content": { route.body_kind: content } });
        }
        operation
    }
}

fn request_id() -> Value {
    json!({ "Request-Id": { "description": "By which kvmlet knows the request", "schema": { "type": "string" } } })
}

/// What can be done with what was made.
fn links() -> Value {
    let routes = TABLES.iter().copied().flatten();
    let routes = routes.filter(|route| route.path.contains("{name}") && route.act != Act::Create);
    let link = |route: &Route| {
        let link =
            json!({ "operationId": route.id, "parameters": { "name": "$request.path.name" } });
        (route.id.to_owned(), link)
    };
    routes.map(link).collect::<Map<_, _>>().into()
}

/// A description of a VM.
fn example() -> Value {
    json!({
        "config": { "root": "/srv/images/nginx.erofs", "memory": "256M" },
        "service": { "env": { "TZ": "UTC" } },
        "restart": "on-failure:3",
        "labels": { "tenant": "one" },
    })
}

/// What a status says of a request.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "It is not understood",
        404 => "There is no such thing",
        408 => "It was not whole in time",
        409 => "The VM is in another state, or is another one",
        413 => "Its body is too long",
        422 => "The VM was started, and does not run",
        429 => "Too much was asked in the last second: wait as `Retry-After` says",
        431 => "Its head is too long",
        500 => "This host cannot do it",
        503 => "Too much is asked at a time: try again",
        504 => "The VM does not answer in time: try again",
        _ => "It is not done",
    }
}

/// All of it, as OpenAPI 3.1 has it.
pub fn document(tables: &[&'static [Route]]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for route in tables.iter().copied().flatten() {
        let operation = schemas.operation(route);
        let method = route.method.name().to_ascii_lowercase();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation;
    }
    let mut all = schemas.told.take_definitions(true);
    all.extend(schemas.sent.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kvmlet",
            "description": "VMs of one user on one host, or one of them: made, started, watched and ended.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": "http://localhost", "description": "By the Unix socket of `kvmlet serve`" }],
        "paths": paths,
        "components": { "schemas": all },
    })
}
