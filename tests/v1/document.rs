//! The document of the API, and whether an answer is one that it has.

use serde_json::{Value, json};

/// As the server tells it.
pub struct Document(pub Value);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Told {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Told {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    pub fn lines(&self) -> Vec<Value> {
        let lines = self.body.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

impl Document {
    /// The path that a request is about, as the document has it.
    fn path(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap();
        let is_same = |known: &str| {
            let (known, steps): (Vec<_>, Vec<_>) =
                (known.split('/').collect(), path.split('/').collect());
            let same = known.iter().zip(&steps);
            known.len() == steps.len()
                && same
                    .into_iter()
                    .all(|(known, step)| known == step || known.starts_with('{'))
        };
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .keys()
            .map(String::as_str)
            .find(|known| is_same(known))
    }

    /// Fails where the answer is none that the document has for that request.
    pub fn check(&self, method: &str, path: &str, told: &Told) {
        assert!(told.field("Request-Id").is_some(), "{told:?}");
        let problem = || {
            self.schema(
                "application/problem+json",
                &json!({
                    "schema": { "$ref": "#/components/schemas/Problem" }
                }),
                told,
            )
        };
        let Some(known) = self.path(path) else {
            assert_eq!(told.status, 404, "{method} {path}: {told:?}");
            return problem();
        };
        let operation = &self.0["paths"][known][method.to_ascii_lowercase()];
        if operation.is_null() {
            assert_eq!(told.status, 405, "{method} {path}: {told:?}");
            return problem();
        }
        let answer = &operation["responses"][told.status.to_string()];
        assert!(
            answer.is_object(),
            "{method} {path} has no {}: {told:?}",
            told.status
        );
        match answer["content"].as_object() {
            None => assert_eq!(told.body, "", "{method} {path}"),
            Some(kinds) => {
                let kind = told.field("Content-Type").unwrap();
                let content = kinds
                    .get(kind)
                    .unwrap_or_else(|| panic!("{kind}: {kinds:?}"));
                self.schema(kind, content, told);
            }
        }
    }

    fn schema(&self, kind: &str, content: &Value, told: &Told) {
        assert_eq!(told.field("Content-Type"), Some(kind), "{told:?}");
        let (schema, values) = match content.get("x-line-schema") {
            Some(schema) => (schema, told.lines()),
            None if kind.contains("json") => (&content["schema"], vec![told.json()]),
            None => (&content["schema"], vec![told.body.as_str().into()]),
        };
        let whole = json!({ "allOf": [schema], "components": self.0["components"] });
        let validator = jsonschema::validator_for(&whole).unwrap();
        for value in values {
            if let Err(error) = validator.validate(&value) {
                panic!("{error} at {}: {value}", error.instance_path());
            }
        }
    }
}
