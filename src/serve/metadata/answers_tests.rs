use super::*;
use crate::http::{Parsed, parse_with};
use serde_json::json;

fn answers(version: Version, is_text: bool) -> Answers {
    let mut answers = Answers::new(version, is_text, [5; 32]);
    answers.set(json!({
        "latest": { "meta-data": { "ami-id": "ami-1", "a/b": "c", "n": 7, "l": [1], "none": null } },
        "user": "data",
    }));
    answers
}

/// What a request is answered: a status, the body, what that is, and the whole.
fn ask(answers: &mut Answers, now: u64, request: &str) -> (u16, String, &'static str, Answer) {
    let mut fields = Fields::default();
    let bytes = format!("{}\r\n\r\n", request.replace('\n', "\r\n"));
    let parsed = parse_with(bytes.as_bytes(), 100, |name, value| {
        fields.note(name, value)
    });
    let Parsed::Whole(request, _) = parsed else {
        panic!("{bytes}: {parsed:?}");
    };
    let answer = answers.answer(&request, &fields, Duration::from_secs(now));
    let body = answer.body.clone().unwrap_or_default();
    (answer.status, body, answer.kind, answer)
}

fn get(answers: &mut Answers, path: &str, fields: &str) -> (u16, String, &'static str) {
    let request = format!("GET {path} HTTP/1.1{fields}");
    let (status, body, kind, _) = ask(answers, 0, &request);
    (status, body, kind)
}

#[test]
fn data_is_told_as_text_or_as_json() {
    let mut v1 = answers(Version::V1, false);
    let json = "\nAccept: application/json";
    for (path, fields, status, body, kind) in [
        ("/", "", 200, "latest/\nuser", TEXT),
        ("/latest", "", 200, "meta-data/", TEXT),
        ("/latest/", "\nAccept: */*", 200, "meta-data/", TEXT),
        (
            "//latest///meta-data/",
            "",
            200,
            "a/b\nami-id\nl\nn\nnone",
            TEXT,
        ),
        ("/latest/meta-data/ami-id", "", 200, "ami-1", TEXT),
        ("/latest/meta-data/ami-id", json, 200, "\"ami-1\"", JSON),
        ("/latest/meta-data/a~1b", json, 200, "\"c\"", JSON),
        ("/latest/meta-data/n", json, 200, "7", JSON),
        ("/latest/meta-data/none", json, 200, "null", JSON),
        (
            "/latest/meta-data/l/0",
            "\naccept: text/html, application/json;q=1",
            200,
            "1",
            JSON,
        ),
        ("http://169.254.169.254/user", "", 200, "data", TEXT),
        ("/user?x=1", "", 200, "data", TEXT),
        ("/nothing", json, 404, "Resource not found: /nothing.", TEXT),
        ("/latest/meta-data/n", "", 501, "unsupported type", TEXT),
        ("/latest/meta-data/l", "", 501, "unsupported type", TEXT),
    ] {
        let told = get(&mut v1, path, fields);
        assert_eq!((told.0, told.2), (status, kind), "{path}: {told:?}");
        let is_told = told.1 == body || status == 501 && told.1.contains(body);
        assert!(is_told, "{path}: {told:?}");
    }
    let mut compatible = answers(Version::V1, true);
    let told = get(&mut compatible, "/user", json);
    assert_eq!((told.0, &*told.1), (200, "data"));
    let mut empty = Answers::new(Version::V1, false, [0; 32]);
    assert_eq!(get(&mut empty, "/", json).0, 404);
}

#[test]
fn the_second_version_wants_a_token() {
    let mut v2 = answers(Version::V2, false);
    let (status, why, _) = get(&mut v2, "/user", "");
    assert_eq!(status, 401);
    assert!(why.starts_with("No MMDS token provided"), "{why}");
    let (status, token, kind, answer) = ask(
        &mut v2,
        0,
        "PUT /latest/api/token HTTP/1.1\nx-METADATA-token-ttl-seconds: 60",
    );
    assert_eq!((status, kind), (200, TEXT));
    let field = ("X-metadata-token-ttl-seconds", "60".to_owned());
    assert_eq!(answer.fields, [field]);
    for name in ["X-metadata-token", "x-aws-ec2-metadata-TOKEN"] {
        let with = format!("GET /user HTTP/1.1\n{name}: {token}");
        assert_eq!(ask(&mut v2, 59, &with).1, "data");
        let (status, why, ..) = ask(&mut v2, 60, &with);
        assert_eq!((status, &*why), (401, "MMDS token not valid."));
    }
    // The first one has tokens, and asks for none.
    let mut v1 = answers(Version::V1, false);
    let wrong = "\nX-metadata-token: wrong";
    assert_eq!(get(&mut v1, "/user", wrong).1, "data");
    let request = "PUT /latest/api/token HTTP/1.1\nX-aws-ec2-metadata-token-ttl-seconds: 1";
    assert_eq!(ask(&mut v1, 0, request).0, 200);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let mut v2 = answers(Version::V2, false);
    let ttl = "\nX-metadata-token-ttl-seconds: ";
    for (request, status, part) in [
        (
            "PUT /latest/api/token HTTP/1.1".into(),
            400,
            "not found: `X-metadata-token-ttl-seconds`",
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1{ttl}0"),
            400,
            "token: 0. It has to be from 1 to 21600",
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1{ttl}21601"),
            400,
            "token: 21601.",
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1{ttl}soon"),
            400,
            "Value:soon",
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1{ttl}4294967297"),
            400,
            "Value:4294967297",
        ),
        (
            format!("PUT /user HTTP/1.1{ttl}60"),
            404,
            "Resource not found: /user.",
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1{ttl}60\nX-Forwarded-For: 10.0.0.1"),
            400,
            "Key: X-Forwarded-For",
        ),
        ("POST / HTTP/1.1".into(), 405, "Not allowed HTTP method."),
        ("DELETE /user HTTP/1.1".into(), 405, "Not allowed"),
    ] {
        let (told, body, kind, answer) = ask(&mut v2, 0, &request);
        assert_eq!((told, kind), (status, TEXT), "{request}: {body}");
        assert!(body.contains(part), "{request}: {body}");
        if status == 405 {
            assert_eq!(answer.fields, [("Allow", "GET, PUT".to_owned())]);
        }
    }
}
