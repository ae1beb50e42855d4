//! Images from registries: Debian's, and small ones that do what no registry should.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

mod made;
mod server;
mod world;

use made::{Content, INDEX, MANIFEST, digest, layer, noise};
use serde_json::json;
use server::{Request, Response, Server, forward};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use world::{Registry, User, Wants, is_installed, said, tool};

/// Copies an image from a layout into a registry.
fn push(layout: &Path, tag: &str, to: &str, options: &[&str]) {
    let mut command = Command::new("skopeo");
    command
        .args([
            "--insecure-policy",
            "copy",
            "--all",
            "--dest-tls-verify=false",
        ])
        .args(options);
    tool(
        command
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{to}")),
    );
}

fn serve(content: Content) -> Server {
    Server::start(move |request| content.answer(request))
}

/// An image of two layers, each of them this long.
fn two_layers(seed: u64, length: usize) -> [Vec<u8>; 2] {
    [
        layer(&[("bin/base", noise(seed, length))]),
        layer(&[("bin/service", noise(seed + 1, length))]),
    ]
}

/// A certificate of an authority that nobody knows, for this host; the authority's, the certificate and its key.
fn certificates(at: &Path) -> [std::path::PathBuf; 3] {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
        -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt && \
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout key -out csr && \
        printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >ext && \
        openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out crt";
    tool(Command::new("sh").args(["-ec", script]).current_dir(at));
    ["ca.crt", "crt", "key"].map(|name| at.join(name))
}

#[test]
fn debians_registry_with_a_password_and_a_certificate_of_its_own() {
    if !["docker-registry", "skopeo", "htpasswd", "openssl"]
        .into_iter()
        .all(is_installed)
    {
        return println!("SKIPPED: docker-registry, skopeo, htpasswd or openssl is not installed");
    }
    let place = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates(place.path());
    let passwords = place.path().join("passwords");
    tool(
        Command::new("htpasswd")
            .args(["-Bbc"])
            .arg(&passwords)
            .args(["user", "secret word"]),
    );
    let registry = Registry::start(&Wants {
        passwords: Some(&passwords),
        tls: Some((&certificate, &key)),
    });
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(1, 100_000));
    let layout = place.path().join("layout");
    content.write(&layout);
    let credentials = ["--dest-creds", "user:secret word"];
    let name = format!("{}/team/app", registry.host());
    push(&layout, "one", &format!("{name}:gzip"), &credentials);
    let zstd = [
        "--dest-compress-format",
        "zstd",
        "--dest-creds",
        "user:secret word",
    ];
    push(&layout, "one", &format!("{name}:zstd"), &zstd);

    let user = User::new();
    let gzip = format!("{name}:gzip");
    // Nobody knows its authority yet.
    let text = user.refused(&["pull", &gzip]);
    assert!(text.contains("certs.d"), "{text}");
    let certificates = user.path(&format!(".config/kvmlet/certs.d/{}", registry.host()));
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(&authority, certificates.join("ca.crt")).unwrap();
    let text = user.refused(&["pull", &gzip]);
    assert!(text.contains("kvmlet login"), "{text}");

    let login = |password: &str| {
        let mut command =
            user.command(&["login", "-u", "user", "--password-stdin", &registry.host()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let output = login("wrong\n");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!user.path(".docker/config.json").exists());
    let output = login("secret word\n");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Login Succeeded\n");

    let text = user.done(&["pull", &gzip]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("Digest: sha256:"), "{text}");
    assert_eq!(
        lines[1],
        format!("Status: Downloaded newer image for {gzip}")
    );
    assert_eq!(lines[2], gzip);
    let files = user.files();
    let text = user.done(&["pull", &gzip]);
    assert!(text.contains("Status: Image is up to date for"), "{text}");
    // The same layers, compressed otherwise.
    user.done(&["pull", "-q", &format!("{name}:zstd")]);
    assert_eq!(user.files().len(), files.len());
    let text = user.done(&[
        "images",
        "--format",
        "{{.Repository}}:{{.Tag}} {{.CreatedAt}}",
    ]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = |tag: &str| format!("{name}:{tag} 2024-05-06T07:08:09");
    assert!(
        lines[0].starts_with(&expected("gzip")) && lines[1].starts_with(&expected("zstd")),
        "{text}"
    );
    let text = user.done(&["image", "check"]);
    assert!(text.contains("2 layers and 1 images"), "{text}");
    user.done(&["logout", &registry.host()]);
    user.refused(&["pull", &gzip]);
}

#[test]
fn what_breaks_off_goes_on_where_it_ended() {
    const LENGTH: usize = 3_000_000;
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(10, LENGTH));
    let total: usize = content.blobs.values().map(Vec::len).sum();
    let broken = Server::start(move |request| {
        let mut response = content.answer(request);
        // Configurations come whole.
        if request.path.contains("/blobs/") && response.body.len() > 100_000 {
            response.cut = Some(900_000);
        }
        response
    });
    let user = User::new();
    let name = format!("{}/app:one", broken.host());
    user.done(&["pull", &name]);
    let (bytes, requests) = broken.blobs();
    // Nothing came twice, but for what was on its way when the connection ended.
    assert!(
        bytes >= total && bytes < total + total / 3,
        "{bytes} of {total}"
    );
    assert!(requests >= 9, "{requests}");
    let went_on = |(request, _): &(Request, usize)| request.header("range").is_some();
    assert!(broken.seen().iter().filter(|it| went_on(it)).count() >= 6);
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
}

#[test]
fn a_registry_without_ranges_is_read_again() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(15, 500_000));
    let times = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut whole = request.clone();
        whole.headers.remove("range");
        let mut response = content.answer(&whole);
        if response.body.len() > 100_000 && times.fetch_add(1, Ordering::Relaxed) < 3 {
            response.cut = Some(200_000);
        }
        response
    });
    let user = User::new();
    user.done(&["pull", &format!("{}/app:one", server.host())]);
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
}

#[test]
fn what_always_breaks_off_is_an_error_and_leaves_nothing() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(20, 300_000));
    let server = Server::start(move |request| {
        let mut response = content.answer(request);
        if response.body.len() > 100_000 {
            response.cut = Some(if request.from() == 0 { 50_000 } else { 0 });
        }
        if request.from() > 0 {
            response.cut = Some(0);
        }
        response
    });
    let user = User::new();
    let text = user.refused(&["pull", &format!("{}/app:one", server.host())]);
    assert!(text.contains("breaks off after 50000 of"), "{text}");
    assert!(user.files().is_empty(), "{:?}", user.files());
    assert_eq!(user.done(&["images", "-q"]), "");
}

#[test]
fn what_is_not_what_its_digest_says_is_not_kept() {
    let mut content = Content::default();
    let [base, service] = two_layers(30, 200_000);
    content.image(Some("one"), "amd64", &[base, service.clone()]);
    let mut other = service.clone();
    other[600] ^= 1;
    content.blobs.insert(digest(&service), other);
    let user = User::new();
    let server = serve(content);
    let text = user.refused(&["pull", &format!("{}/app:one", server.host())]);
    assert!(text.contains("its digest is sha256:"), "{text}");
    assert_eq!(user.done(&["images", "-q"]), "");
    // A manifest, too.
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(31, 1000));
    let wrong = digest(b"something else");
    let manifest = content.manifests["one"].clone();
    content.manifests.insert(wrong.clone(), manifest);
    let server = serve(content);
    let text = user.refused(&["pull", &format!("{}/app@{wrong}", server.host())]);
    assert!(text.contains(&format!("not {wrong}")), "{text}");
    // And a layer that is not the one of the configuration, though its own digest is right.
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(32, 1000));
    let (media_type, text) = content.manifests["one"].clone();
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    manifest["layers"][1] = content.blob(
        "application/vnd.oci.image.layer.v1.tar",
        layer(&[("x", noise(3, 2000))]),
    );
    content.document(Some("one"), &media_type, &manifest);
    let server = serve(content);
    let text = user.refused(&["pull", &format!("{}/app:one", server.host())]);
    assert!(text.contains("should be"), "{text}");
}

#[test]
fn a_second_image_moves_only_its_own_layers() {
    let [base, first] = two_layers(40, 400_000);
    let second = layer(&[("bin/other", noise(42, 50_000))]);
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &[base.clone(), first]);
    content.image(Some("two"), "amd64", &[base, second.clone()]);
    let server = serve(content);
    let user = User::new();
    user.done(&["pull", &format!("{}/app:one", server.host())]);
    let (before, _) = server.blobs();
    user.done(&["pull", &format!("{}/app:two", server.host())]);
    let (after, _) = server.blobs();
    // And its configuration.
    let moved = after - before;
    assert!(
        moved >= second.len() && moved < second.len() + 2000,
        "{moved}"
    );
}

#[test]
fn tokens_are_asked_for_and_shown_to_the_registry_alone() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(50, 100_000));
    let blobs = content.clone();
    let elsewhere = Server::start(move |request| blobs.answer(request));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let giver = Server::start(move |request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let fits = request.path.contains("scope=repository:team/app:pull")
            && request.path.contains("service=the%20registry");
        // That of the user "me" with the password "secret".
        let knows = request.header("authorization") == Some("Basic bWU6c2VjcmV0");
        match fits && knows {
            true => Response::new(200, json!({"token": format!("token{number}")}).to_string()),
            false => Response::new(401, r#"{"errors":[{"message":"who is that?"}]}"#),
        }
    });
    let (realm, place) = (giver.host(), elsewhere.host());
    let first = Mutex::new(true);
    let registry = Server::start(move |request| {
        let challenge = format!("Bearer realm=\"http://{realm}/token\",service=\"the registry\"");
        let denied = Response::new(401, "{}").header("WWW-Authenticate", challenge);
        let shown = request.header("authorization").unwrap_or_default();
        if !shown.starts_with("Bearer token") {
            return denied;
        }
        if request.path.contains("/blobs/") {
            // The first token runs out on the way.
            if shown == "Bearer token0" && std::mem::take(&mut *first.lock().unwrap()) {
                return denied;
            }
            return Response::new(307, "")
                .header("Location", format!("http://{place}{}?signed", request.path));
        }
        content.answer(request)
    });
    let user = User::new();
    let name = format!("{}/team/app:one", registry.host());
    let text = user.refused(&["pull", &name]);
    assert!(
        text.contains("who is that?") && text.contains("kvmlet login"),
        "{text}"
    );
    fs::create_dir(user.path(".docker")).unwrap();
    let config = json!({"auths": {registry.host(): {"auth": "bWU6c2VjcmV0"}}});
    fs::write(user.path(".docker/config.json"), config.to_string()).unwrap();
    let refused = asked.swap(0, Ordering::Relaxed);
    assert_eq!(refused, 1);
    user.done(&["pull", &name]);
    assert!(
        asked.load(Ordering::Relaxed) <= 4,
        "{}",
        asked.load(Ordering::Relaxed)
    );
    let seen = elsewhere.seen();
    assert!(seen.len() >= 3);
    for (request, _) in seen {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

/// Wants a token of its own for all, and gives it to everybody.
fn thief() -> Server {
    let port = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&port);
    let thief = Server::start(move |request| {
        let port = own.load(Ordering::SeqCst);
        let wanted = format!("Bearer realm=\"http://127.0.0.1:{port}/stolen\"");
        match request.path.starts_with("/stolen") {
            true => Response::new(200, r#"{"token":"token"}"#),
            false => Response::new(401, "{}").header("WWW-Authenticate", wanted),
        }
    });
    port.store(thief.port.into(), Ordering::SeqCst);
    thief
}

/// A registry that wants `challenge` answered, and answers what is asked for at `what` with this status, which leads
/// to a thief, or names it as who gives tokens.
fn led_astray(
    what: &'static str,
    status: u16,
    challenge: Option<String>,
    thief: &Server,
) -> Server {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(55, 1000));
    let place = format!("http://{}", thief.host());
    Server::start(move |request| {
        let is_led = match what {
            "/v2/" => request.path == what,
            what => request.path.contains(what),
        };
        if is_led && status != 401 {
            let location = format!("{place}{}", request.path);
            return Response::new(status, "").header("Location", location);
        }
        let wanted = match (&challenge, request.header("authorization")) {
            (Some(challenge), None) => challenge.clone(),
            _ if is_led => format!("Bearer realm=\"{place}/stolen\""),
            _ => return content.answer(request),
        };
        Response::new(401, "{}").header("WWW-Authenticate", wanted)
    })
}

#[test]
fn who_a_registry_leads_to_is_not_shown_the_password() {
    let giver = Server::start(|_| Response::new(200, r#"{"token":"token"}"#));
    let bearer = format!("Bearer realm=\"http://{}/token\"", giver.host());
    let check = |what, status, challenge: &Option<String>, secret: &serde_json::Value| {
        let thief = thief();
        let registry = led_astray(what, status, challenge.clone(), &thief);
        let user = User::new();
        fs::create_dir(user.path(".docker")).unwrap();
        let config = json!({"auths": {registry.host(): secret}});
        fs::write(user.path(".docker/config.json"), config.to_string()).unwrap();
        let text = user.refused(&["pull", &format!("{}/app:one", registry.host())]);
        let case = format!("{what} {status} {challenge:?} {secret}: {text}");
        let seen = thief.seen();
        assert_eq!(seen.is_empty(), status == 401, "{case}");
        for (request, _) in seen {
            assert_eq!(request.header("authorization"), None, "{case}");
            assert!(!request.path.starts_with("/stolen"), "{case}");
        }
        let expected = match (what, status) {
            (_, 401) => format!("another place for passwords, `http://{}", thief.host()),
            _ => format!("to `http://{}`, which answers 401", thief.host()),
        };
        assert!(text.contains(&expected), "{case}");
    };
    std::thread::scope(|scope| {
        for challenge in [None, Some("Basic realm=\"registry\"".into()), Some(bearer)] {
            for secret in [
                json!({"auth": "bWU6c2VjcmV0"}),
                json!({"auth": "bWU6", "identitytoken": "secret"}),
            ] {
                let challenge = challenge.clone();
                scope.spawn(move || {
                    for (what, status) in [("/v2/", 307), ("/manifests/", 307), ("/blobs/", 302)] {
                        check(what, status, &challenge, &secret);
                    }
                    // The registry itself, halfway. One that wanted nothing may still say who gives tokens.
                    for what in ["/manifests/", "/blobs/"] {
                        if challenge.is_some() {
                            check(what, 401, &challenge, &secret);
                        }
                    }
                });
            }
        }
    });
}

#[test]
fn what_drips_has_an_end() {
    let check = |what: &'static str, expected: &str| {
        let mut content = Content::default();
        content.image(Some("one"), "amd64", &two_layers(57, 100_000));
        let server = Server::start(move |request| {
            let mut response = content.answer(request);
            let is_meant = match what {
                "manifest" | "error" => request.path.contains("/manifests/"),
                // Of the configuration: the time that something may take grows with its length.
                "trailers" => request.path.contains("/blobs/") && response.body.len() < 50_000,
                _ => request.path.contains("/blobs/") && response.body.len() > 50_000,
            };
            if is_meant {
                if what == "error" {
                    response.status = 400;
                }
                if what == "trailers" {
                    response.endless = true;
                }
                // JSON may end with blanks.
                response.body.resize(response.body.len().max(90_000), b' ');
                response.slow = Some(20);
            }
            response
        });
        let user = User::new();
        let mut command = user.command(&["pull", &format!("{}/app:one", server.host())]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        while child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(240) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        assert!(text.contains(expected), "{what}: {text}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check("error", "answers 400"));
        scope.spawn(|| check("manifest", "cannot be read: timed out"));
        scope.spawn(|| check("blob", "comes too slowly"));
        scope.spawn(|| check("trailers", "comes too slowly"));
    });
}

#[test]
fn a_registry_adds_no_lines_to_an_error() {
    let mut content = Content::default();
    let mut image = content.image(None, "amd64", &two_layers(58, 1000));
    let mut index = |tag: &str, all: &[&str]| {
        let all = all.iter().map(|os| {
            image["platform"] = json!({"os": os, "architecture": "amd64"});
            image.clone()
        });
        let all =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all.collect::<Vec<_>>()});
        content.document(Some(tag), INDEX, &all);
    };
    index("lines", &["li\nnux\n  help: do"]);
    index("shell", &["x;reboot", "plan9"]);
    let server = Server::start(move |request| match request.path.contains("/said/") {
        true => Response::new(
            400,
            json!({"errors": [{"message": "nl\nerror: fake\r\n  help: do\u{85}x \u{202e}live"}]})
                .to_string(),
        ),
        false => content.answer(request),
    });
    let user = User::new();
    let refused = |name: &str| user.refused(&["pull", &format!("{}/{name}", server.host())]);
    let text = refused("said/app:one");
    assert_eq!(text.lines().count(), 1, "{text}");
    let end = "nl error: fake    help: do x \\u{202e}live\n";
    assert!(text.ends_with(end), "{text}");
    let text = refused("app:lines");
    assert!(text.contains("li\\nnux\\n  help: do/amd64"), "{text}");
    assert!(
        !text.lines().any(|line| line.starts_with("  help")),
        "{text}"
    );
    let text = refused("app:shell");
    assert!(text.ends_with("`--platform plan9/amd64`\n"), "{text}");
}

#[test]
fn the_image_of_this_platform_is_taken() {
    let mut content = Content::default();
    let image = |content: &mut Content, architecture: &str, variant: &str, seed| {
        let mut it = content.image(None, architecture, &two_layers(seed, 5000));
        it["platform"] = json!({"os": "linux", "architecture": architecture, "variant": variant});
        it
    };
    let mut attestation = content.image(None, "unknown", &[layer(&[("x", noise(1, 10))])]);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let (arm, amd, newer) = (
        image(&mut content, "arm64", "v8", 60),
        image(&mut content, "amd64", "", 70),
        image(&mut content, "amd64", "v2", 80),
    );
    let index = |all: &[&serde_json::Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all});
    let inner = content.document(None, INDEX, &index(&[&attestation, &newer, &amd]));
    content.document(
        Some("all"),
        INDEX,
        &index(&[&attestation, &arm, &newer, &amd]),
    );
    content.document(Some("nested"), INDEX, &index(&[&attestation, &arm, &inner]));
    content.document(Some("arm"), INDEX, &index(&[&attestation, &arm]));
    let expected = content.manifests[amd["digest"].as_str().unwrap()].1.clone();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let server = serve(content);
    let user = User::new();
    for tag in ["all", "nested"] {
        let name = format!("{}/app:{tag}", server.host());
        user.done(&["pull", &name]);
        let id = user.done(&["images", "-q", "--no-trunc", &name]);
        assert_eq!(id.trim(), expected["config"]["digest"], "{tag}");
    }
    let name = format!("{}/app:arm", server.host());
    let text = user.refused(&["pull", &name]);
    assert!(
        text.contains("linux/amd64") && text.contains("linux/arm64/v8"),
        "{text}"
    );
    assert!(
        text.contains("--platform linux/arm64") && !text.contains("unknown"),
        "{text}"
    );
    user.done(&["pull", "--platform", "linux/arm64", &name]);
    let text = user.done(&["image", "inspect", "-f", "{{.Architecture}}", &name]);
    assert_eq!(text, "arm64\n");
}

#[test]
fn hostile_registries_end_in_one_clear_error() {
    let user = User::new();
    let mut content = Content::default();
    let wrong = digest(b"x");
    let config = |media_type: &str| json!({"mediaType": media_type, "digest": wrong, "size": 7});
    let image = "application/vnd.oci.image.config.v1+json";
    let many = vec![config(image); 5000];
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    content.text(Some("large"), MANIFEST, vec![b' '; 5 << 20]);
    content.text(Some("deep"), MANIFEST, deep.into_bytes());
    content.text(Some("text"), MANIFEST, b"<html>no registry</html>".to_vec());
    content.document(
        Some("layers"),
        MANIFEST,
        &json!({"config": config(image), "layers": many}),
    );
    content.document(
        Some("chart"),
        MANIFEST,
        &json!({"config": config("application/vnd.cncf.helm.config.v1+json"), "layers": []}),
    );
    content.document(
        Some("negative"),
        MANIFEST,
        &json!({"config": {"mediaType": image, "digest": wrong, "size": -1}, "layers": []}),
    );
    content.document(Some("path"), MANIFEST, &json!({"config": {"mediaType": image, "digest": "sha256:../../x", "size": 1}, "layers": []}));
    content.document(Some("huge"), MANIFEST, &json!({"config": {"mediaType": image, "digest": wrong, "size": 1_u64 << 62}, "layers": []}));
    content.document(
        Some("old"),
        MANIFEST,
        &json!({"schemaVersion": 1, "fsLayers": []}),
    );
    content.document(
        Some("index"),
        INDEX,
        &json!({"manifests": [{"mediaType": MANIFEST, "digest": wrong, "size": 1}]}),
    );
    // Fewer layers than the configuration says.
    content.image(Some("fewer"), "amd64", &two_layers(90, 1000));
    let mut fewer: serde_json::Value =
        serde_json::from_slice(&content.manifests["fewer"].1).unwrap();
    fewer["layers"].as_array_mut().unwrap().pop();
    content.document(Some("fewer"), MANIFEST, &fewer);
    // No archive at all.
    content.image(Some("noise"), "amd64", &[noise(7, 100_000)]);
    // Far more than it says.
    content.image(Some("longer"), "amd64", &[layer(&[("x", noise(8, 1000))])]);
    let known: Vec<String> = content
        .manifests
        .keys()
        .filter(|name| !name.contains(':'))
        .cloned()
        .collect();
    let server = Server::start(move |request| {
        let mut response = content.answer(request);
        if request.path.contains("/longer/blobs/") {
            response.body.extend(vec![0; 1 << 20]);
        }
        match &*request.path {
            path if path.contains("/circle/") => Response::new(302, "").header("Location", path),
            path if path.contains("/file/") => {
                Response::new(302, "").header("Location", "file:///etc/passwd")
            }
            path if path.contains("/headers/") => (0..2000).fold(response, |it, n| {
                it.header(&format!("X-{n}"), "y".repeat(100))
            }),
            _ => response,
        }
    });
    let mut names: Vec<String> = known.iter().map(|tag| format!("{tag}:{tag}")).collect();
    names.extend(["circle:x", "file:x", "headers:path", "none:none"].map(Into::into));
    for name in names {
        let since = Instant::now();
        let text = user.refused(&["pull", &format!("{}/{name}", server.host())]);
        assert!(since.elapsed() < Duration::from_secs(20), "{name}: {text}");
        assert!(!text.contains("panicked"), "{name}: {text}");
        println!("{name}: {text}");
    }
    assert_eq!(user.done(&["images", "-q"]), "");
    assert!(user.files().is_empty(), "{:?}", user.files());
}

#[test]
fn two_pulls_at_once_share_their_work() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(100, 1_000_000));
    let total: usize = content.blobs.values().map(Vec::len).sum();
    let server = Server::start(move |request| {
        let mut response = content.answer(request);
        if response.body.len() > 100_000 {
            response.slow = Some(1_000_000);
        }
        response
    });
    let user = User::new();
    let name = format!("{}/app:one", server.host());
    let pulls: Vec<_> = (0..3)
        .map(|_| {
            let mut command = user.command(&["pull", &name]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    // Each of them has its own copy of the configuration.
    let (bytes, _) = server.blobs();
    assert!(bytes < total + 4000, "{bytes} of {total}");
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
}

#[test]
fn what_is_killed_leaves_nothing_and_can_be_pulled_again() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(110, 2_000_000));
    let server = Server::start(move |request| {
        let mut response = content.answer(request);
        if response.body.len() > 100_000 {
            response.slow = Some(2_000_000);
        }
        response
    });
    let user = User::new();
    let name = format!("{}/app:one", server.host());
    let mut pull = user.command(&["pull", &name]).spawn().unwrap();
    let since = Instant::now();
    while server.blobs().0 < 500_000 {
        assert!(since.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    // It has become the program: unshare and sh execute what follows.
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert_eq!(user.done(&["images", "-q"]), "");
    user.done(&["pull", &name]);
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
    let files = user.files().len();
    assert_eq!(files, 3, "{:?}", user.files());
}

#[test]
fn who_fetches_has_next_to_no_rights() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(210, 1_000_000));
    let server = Server::start(move |request| {
        let mut response = content.answer(request);
        if response.body.len() > 100_000 {
            response.slow = Some(500_000);
        }
        response
    });
    let user = User::new();
    let name = format!("{}/app:one", server.host());
    let mut pull = user.command(&["pull", &name]).spawn().unwrap();
    let since = Instant::now();
    while server.blobs().0 < 200_000 {
        assert!(since.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    // All threads are there that there will be, and were started behind the walls.
    let tasks = fs::read_dir(format!("/proc/{}/task", pull.id())).unwrap();
    let mut count = 0;
    for task in tasks {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        count += 1;
        let says = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim().to_owned()
        };
        assert_eq!(
            (says("NoNewPrivs:"), says("Seccomp:")),
            ("1".into(), "2".into())
        );
        // To become the user of who unpacks (CAP_SETUID, CAP_SETGID), which root has.
        let rights = u64::from_str_radix(&says("CapPrm:"), 16).unwrap();
        assert_eq!(rights & !0xc0, 0, "{rights:#x}");
    }
    assert!(count > 1);
    assert!(pull.wait().unwrap().success());
}

#[test]
fn names_come_and_go() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(120, 100_000));
    let server = serve(content);
    let user = User::new();
    let name = format!("{}/team/app:one", server.host());
    user.done(&["pull", &name]);
    user.done(&["tag", &name, "other:2"]);
    let text = user.done(&["images", "--format", "{{.Repository}} {{.Tag}}", "other"]);
    assert_eq!(text, "other 2\n");
    let text = user.done(&["image", "history", "--format", "{{.CreatedBy}}", "other:2"]);
    assert_eq!(text, "made by a test\n");
    let text = user.done(&[
        "image",
        "inspect",
        "-f",
        "{{json .Config.Cmd}} {{len .RootFS.Layers}}",
        "other:2",
    ]);
    assert_eq!(text, "[\"/bin/service\"] 2\n");
    assert_eq!(
        user.done(&["images", "-q", "--filter", "label=made=here"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        user.done(&["images", "-q", "--filter", "label=made=there"]),
        ""
    );
    let text = user.done(&["rmi", "other:2"]);
    assert_eq!(text, "Untagged: other:2\n");
    let text = user.refused(&["rmi", "other:2"]);
    assert!(text.contains("there is no image `other:2`"), "{text}");
    let text = user.done(&["rmi", &name]);
    assert!(text.contains("Deleted: sha256:"), "{text}");
    assert_eq!(user.done(&["images", "-q"]), "");
    assert!(user.files().is_empty(), "{:?}", user.files());
    for wrong in [
        &["tag", "none", "x"][..],
        &["image", "inspect", "none"],
        &["image", "history", "none"],
    ] {
        let text = user.refused(wrong);
        assert!(text.contains("there is no image `none`"), "{text}");
    }
    user.refused(&["pull", "Upper/Case"]);
    user.refused(&["pull", "--platform", "linux", &name]);
}

#[test]
fn a_registry_that_is_away_is_told() {
    let user = User::new();
    let text = user.refused(&["pull", "127.0.0.1:1/app"]);
    assert!(
        text.contains("cannot talk to the registry `127.0.0.1:1`"),
        "{text}"
    );
    let text = user.refused(&["pull", "no-such-host.invalid/app"]);
    assert!(text.contains("no-such-host.invalid"), "{text}");
    // Who speaks HTTP, but not a registry's, is not said to need TLS, or to be asked without.
    let other = Server::start(|_| Response::new(404, "<html>"));
    let text = user.refused(&["pull", &format!("{}/app", other.host())]);
    assert!(
        text.contains("404 Not Found: it is not a registry") && !text.contains("TLS"),
        "{text}"
    );
    // What asks in passing is asked again.
    let times = AtomicUsize::new(0);
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(130, 1000));
    let server = Server::start(
        move |request| match times.fetch_add(1, Ordering::Relaxed) % 3 {
            1 => Response::new(503, "later"),
            _ => content.answer(request),
        },
    );
    user.done(&["pull", &format!("{}/app:one", server.host())]);
    // And a proxy in between changes nothing.
    let port = server.port;
    let proxy = Server::start(move |request| forward(port, request));
    user.done(&["pull", &format!("{}/app:one", proxy.host())]);
}

/// Copies an image from a registry to a layout: what somebody else reads.
fn copy_out(from: &str, to: &Path) {
    let mut command = Command::new("skopeo");
    command
        .args(["--insecure-policy", "copy"])
        .arg(from)
        .arg(format!("oci:{}:x", to.display()));
    tool(command.args(["--src-tls-verify=false"]));
}

/// The digests of a layout's layers, not compressed.
fn diff_ids(layout: &Path) -> serde_json::Value {
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blob = |digest: &serde_json::Value| {
        read(
            &layout
                .join("blobs/sha256")
                .join(&digest.as_str().unwrap()[7..]),
        )
    };
    let manifest = blob(&read(&layout.join("index.json"))["manifests"][0]["digest"]);
    blob(&manifest["config"]["digest"])["rootfs"]["diff_ids"].clone()
}

#[test]
fn what_is_pushed_is_what_was_pulled() {
    if !["docker-registry", "skopeo"].into_iter().all(is_installed) {
        return println!("SKIPPED: docker-registry or skopeo is not installed");
    }
    let mut content = Content::default();
    let layers = two_layers(140, 300_000);
    content.image(Some("one"), "amd64", &layers);
    let server = serve(content);
    let user = User::new();
    user.done(&["pull", &format!("{}/app:one", server.host())]);
    let registry = Registry::start(&Wants::default());
    // Requests go by a place where they are counted.
    let port = registry.port;
    let name = format!("{}/team/pushed:1", registry.host());
    user.done(&["tag", &format!("{}/app:one", server.host()), &name]);
    let text = user.done(&["push", &name]);
    assert!(text.contains("\n1: digest: sha256:"), "{text}");
    let other = format!("{}/team/again:2", registry.host());
    user.done(&["tag", &name, &other]);
    user.done(&["push", &other]);
    let place = tempfile::tempdir().unwrap();
    for name in [&name, &other] {
        let layout = place.path().join(name.replace(['/', ':'], "-"));
        copy_out(&format!("docker://{name}"), &layout);
        assert_eq!(
            diff_ids(&layout),
            json!(layers.each_ref().map(|layer| digest(layer)))
        );
    }
    let stranger = User::new();
    stranger.done(&["pull", &format!("127.0.0.1:{port}/team/again:2")]);
    assert_eq!(
        stranger.done(&["images", "-q"]),
        user.done(&["images", "-q"])
    );
    user.refused(&["push", "none:1"]);
}

#[test]
fn archives_go_out_and_come_in() {
    let mut content = Content::default();
    let layers = two_layers(150, 300_000);
    content.image(Some("one"), "amd64", &layers);
    let place = tempfile::tempdir().unwrap();
    let layout = place.path().join("layout");
    content.write(&layout);
    let server = serve(content);
    let user = User::new();
    user.done(&["pull", &format!("{}/app:one", server.host())]);
    user.done(&["tag", &format!("{}/app:one", server.host()), "saved:1"]);
    let archive = place.path().join("saved.tar");
    let path = archive.to_str().unwrap();
    user.done(&["save", "-o", path, "saved:1"]);
    let id = user.done(&["images", "-q", "saved"]);
    let load = |user: &User, arguments: &[&str], input: Option<&Path>| {
        let mut command = user.command(arguments);
        if let Some(input) = input {
            command.stdin(fs::File::open(input).unwrap());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    tool(Command::new("gzip").args(["-k", path]));
    let packed = place.path().join("saved.tar.gz");
    for (arguments, input) in [
        (&["load", "-i", path][..], None),
        (&["load"], Some(&*archive)),
        (&["load"], Some(&*packed)),
    ] {
        let other = User::new();
        assert_eq!(load(&other, arguments, input), "Loaded image: saved:1\n");
        assert_eq!(other.done(&["images", "-q", "saved"]), id);
        assert!(
            other
                .done(&["image", "check"])
                .contains("2 layers and 1 images")
        );
        // Written again it is the same.
        let again = other.path("again.tar");
        other.done(&["save", "-o", again.to_str().unwrap(), "saved:1"]);
        assert!(fs::read(&again).unwrap() == fs::read(&archive).unwrap());
    }
    let other = User::new();
    let text = load(&other, &["load", "-i", layout.to_str().unwrap()], None);
    assert!(text.starts_with("Loaded image ID: sha256:"), "{text}");
    assert_eq!(other.done(&["images", "-q"]), id);
    if is_installed("skopeo") {
        for kind in ["oci-archive", "docker-archive"] {
            let to = place.path().join(kind);
            let mut command = Command::new("skopeo");
            command
                .args(["--insecure-policy", "copy"])
                .arg(format!("{kind}:{path}"));
            tool(command.arg(format!("oci:{}:x", to.display())));
            assert_eq!(
                diff_ids(&to),
                json!(layers.each_ref().map(|layer| digest(layer)))
            );
        }
        let theirs = place.path().join("theirs.tar");
        let mut command = Command::new("skopeo");
        command
            .args(["--insecure-policy", "copy"])
            .arg(format!("oci:{}:one", layout.display()));
        tool(command.arg(format!("docker-archive:{}:theirs:7", theirs.display())));
        let other = User::new();
        let text = load(&other, &["load", "-i", theirs.to_str().unwrap()], None);
        assert_eq!(text, "Loaded image: theirs:7\n");
        assert_eq!(other.done(&["images", "-q"]), id);
    }
    // The tree of a root file system, and what is none of all that.
    let tree = place.path().join("tree.tar");
    fs::write(&tree, layer(&[("etc/hosts", noise(1, 5000))])).unwrap();
    let text = user.done(&["import", tree.to_str().unwrap(), "imported:1"]);
    assert!(text.starts_with("sha256:"), "{text}");
    assert_eq!(
        user.done(&["images", "--format", "{{.Tag}}", "imported"]),
        "1\n"
    );
    let text = user.refused(&["load", "-i", tree.to_str().unwrap()]);
    assert!(text.contains("kvmlet import"), "{text}");
    let directory = place.path().join("tree");
    fs::create_dir_all(directory.join("etc")).unwrap();
    fs::write(directory.join("etc/hosts"), noise(2, 5000)).unwrap();
    let import = ["import", directory.to_str().unwrap(), "directory:1"];
    let text = user.done(&import);
    fs::write(directory.join("etc/hosts"), noise(2, 5000)).unwrap();
    assert_eq!(user.done(&import), text, "the same files, later");
    assert_eq!(
        user.done(&["images", "--format", "{{.Tag}}", "directory"]),
        "1\n"
    );
    for wrong in [
        noise(9, 50_000),
        Vec::new(),
        fs::read(&archive).unwrap()[..200_000].to_vec(),
    ] {
        let file = place.path().join("wrong");
        fs::write(&file, wrong).unwrap();
        user.refused(&["load", "-i", file.to_str().unwrap()]);
        user.refused(&["load", "-i", "nowhere.tar"]);
    }
}

/// Says where a user's images come from.
fn settle(user: &User, text: &str) {
    let place = user.path(".config/containers");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("registries.conf"), text).unwrap();
}

#[test]
fn a_mirror_is_asked_first_and_its_registry_where_it_fails() {
    if !["docker-registry", "skopeo"].into_iter().all(is_installed) {
        return println!("SKIPPED: docker-registry or skopeo is not installed");
    }
    let place = tempfile::tempdir().unwrap();
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(40, 100_000));
    let layout = place.path().join("layout");
    content.write(&layout);
    let [mirror, origin] = [(); 2].map(|()| Registry::start(&Wants::default()));
    push(
        &layout,
        "one",
        &format!("{}/team/app:one", origin.host()),
        &[],
    );
    let user = User::new();
    let settings = format!(
        "unqualified-search-registries = [\"elsewhere.invalid\"]\nsomething-new = 7\n\
         [[registry]]\nprefix = \"{0}/team\"\nlocation = \"{0}/team\"\nunknown = true\n\
         [[registry.mirror]]\nlocation = \"127.0.0.1:1/none\"\n\
         [[registry.mirror]]\nlocation = \"{1}/mirrored\"\ninsecure = true\n\
         [[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"{1}/hub\"\n\
         [[registry]]\nprefix = \"{0}/secret\"\nblocked = true\n",
        origin.host(),
        mirror.host(),
    );
    settle(&user, &settings);
    // Neither mirror has it.
    let name = format!("{}/team/app:one", origin.host());
    let output = user.run(&["pull", &name]);
    assert!(output.status.success(), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("127.0.0.1:1` is passed over"), "{told}");
    assert!(
        told.contains(&format!("{}` is passed over", mirror.host())),
        "{told}"
    );
    user.done(&["rmi", "-f", &name]);
    // Then one has, and its registry is not there any more.
    push(
        &layout,
        "one",
        &format!("{}/mirrored/app:one", mirror.host()),
        &[],
    );
    drop(origin);
    let told = user.done(&["pull", &name]);
    assert!(told.contains("Downloaded newer image"), "{told}");
    let digest = told.lines().next().unwrap().rsplit(' ').next().unwrap();
    user.done(&[
        "pull",
        &format!("{}@{digest}", name.trim_end_matches(":one")),
    ]);
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
    // What a name without a registry means stays what it is.
    push(
        &layout,
        "one",
        &format!("{}/hub/library/app:one", mirror.host()),
        &[],
    );
    let told = user.done(&["pull", "app:one"]);
    assert!(told.ends_with("docker.io/library/app:one\n"), "{told}");
    let secret = name.replace("/team/", "/secret/");
    let told = user.refused(&["pull", &secret]);
    assert!(
        told.contains("blocked on this host") && told.contains("registries.conf"),
        "{told}"
    );
    settle(&user, "[[registry]\n");
    let told = user.refused(&["pull", &name]);
    assert!(told.contains("registries.conf`"), "{told}");
}

#[test]
fn what_a_mirror_gives_is_checked_as_anything_is() {
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(50, 50_000));
    let origin = serve(content.clone());
    // The right manifest, and layers that are others.
    let mut wrong = content.clone();
    for blob in wrong.blobs.values_mut().filter(|blob| blob.len() > 10_000) {
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
    }
    let mirror = serve(wrong);
    let user = User::new();
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        origin.host(),
        mirror.host()
    );
    settle(&user, &text);
    let name = format!("{}/app:one", origin.host());
    let output = user.run(&["pull", &name]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("is passed over"),
        "{}",
        said(&output)
    );
    assert!(mirror.blobs().1 >= 2 && origin.blobs().1 >= 2);
    assert!(
        user.done(&["image", "check"])
            .contains("2 layers and 1 images")
    );
}

/// The rows that a search prints, each as its words.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn a_search_tells_what_a_registry_finds() {
    let found = json!({"num_results": 4, "results": [
        {"name": "team/nginx", "description": "of\n a\u{1b}[31m team", "star_count": 3, "is_official": false},
        {"name": "nginx", "description": "x".repeat(50), "star_count": 20_000, "is_official": true},
        {"name": "UPPER/\u{1b}[2J", "description": "is none", "star_count": 1},
        {"description": "has no name"},
    ]});
    let hub = Server::start(
        move |request| match request.path.split('?').next().unwrap() {
            "/v2/" => Response::new(200, "{}"),
            "/v1/search" => Response::new(200, found.to_string()),
            _ => Response::new(404, "{}"),
        },
    );
    let user = User::new();
    settle(
        &user,
        &format!(
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\n[[registry]]\nprefix = \"secret.example\"\nblocked = true\n",
            hub.host()
        ),
    );
    let told = user.done(&["search", "library/ng+x", "--limit", "7"]);
    let short = "x".repeat(44) + "…";
    assert_eq!(
        rows(&told),
        [
            vec!["NAME", "DESCRIPTION", "STARS", "OFFICIAL"],
            vec!["nginx", &short, "20000", "[OK]"],
            vec!["team/nginx", "of", "a", "[31m", "team", "3"],
        ]
    );
    let asked = hub.seen().last().unwrap().0.path.clone();
    assert_eq!(asked, "/v1/search?q=ng%2Bx&n=7");
    let filters = ["-f", "is-official=true", "-f", "stars=5"];
    let json = ["--format", "json", "--no-trunc", "nginx"];
    let told = user.done(&[&["search"][..], &filters, &json].concat());
    let long = "x".repeat(50);
    assert_eq!(
        told,
        format!(
            "{{\"Description\":\"{long}\",\"IsAutomated\":\"false\",\"IsOfficial\":\"true\",\"Name\":\"nginx\",\"StarCount\":\"20000\"}}\n"
        )
    );
    for (wrong, expected) in [
        (&["search", "secret.example/x"][..], "blocked on this host"),
        (&["search", ""], "kvmlet search nginx"),
        (
            &["search", "-f", "stars=many", "x"],
            "is-official=true|false",
        ),
        (&["search", "http://127.0.0.1/x"], "without `https://`"),
        (&["search", "a b.example/x"], "not the name of an image"),
    ] {
        let told = user.refused(wrong);
        assert!(told.contains(expected), "{wrong:?}: {told}");
    }
}

#[test]
fn a_registry_without_a_search_is_asked_for_its_list() {
    if !["docker-registry", "skopeo"].into_iter().all(is_installed) {
        return println!("SKIPPED: docker-registry or skopeo is not installed");
    }
    let place = tempfile::tempdir().unwrap();
    let mut content = Content::default();
    content.image(Some("one"), "amd64", &two_layers(60, 1000));
    content.write(place.path());
    let registry = Registry::start(&Wants::default());
    for name in ["team/app", "team/web", "app"] {
        push(
            place.path(),
            "one",
            &format!("{}/{name}:one", registry.host()),
            &[],
        );
    }
    let user = User::new();
    let names = |text: &str| {
        let words = ["search", "--format", "{{.Name}}", text];
        let told = user.done(&words).replace(&registry.host(), "HOST");
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let host = registry.host();
    assert_eq!(names(&format!("{host}/app")), ["HOST/app", "HOST/team/app"]);
    let all = ["HOST/app", "HOST/team/app", "HOST/team/web"];
    assert_eq!(names(&format!("{host}/")), all);
    assert!(names(&format!("{host}/nothing")).is_empty());
    // What it has found can be pulled.
    user.done(&["pull", &format!("{host}/team/app:one")]);
}

#[test]
fn a_list_of_many_pages_is_read_with_a_token_and_ends() {
    let port = Arc::new(AtomicUsize::new(0));
    let known = Arc::clone(&port);
    let server = Server::start(move |request| {
        let place = format!("http://127.0.0.1:{}", known.load(Ordering::Relaxed));
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let page = |names: &[&str], next: &str| {
            let body = json!({"repositories": names}).to_string();
            Response::new(200, body).header("Link", format!("<{next}>; rel=\"next\""))
        };
        let has_token = request.header("authorization") == Some("Bearer for-the-list");
        match (path, has_token) {
            ("/token", _) => {
                assert!(query.contains("scope=registry:catalog:%2A"), "{query}");
                Response::new(200, r#"{"token": "for-the-list"}"#)
            }
            ("/v1/search", _) => Response::new(200, "<html>a page for people</html>"),
            ("/v2/" | "/v2/_catalog", false) => Response::new(401, "{}").header(
                "WWW-Authenticate",
                format!("Bearer realm=\"{place}/token\",service=\"x\""),
            ),
            ("/v2/", true) => Response::new(200, "{}"),
            _ if query.contains("last=b") => page(&["b", "c-app"], "http://localhost:1/elsewhere"),
            _ => page(
                &["a-app", "b", "../x-app", "\u{1b}-app"],
                "/v2/_catalog?last=b&n=3",
            ),
        }
    });
    port.store(server.port.into(), Ordering::Relaxed);
    let user = User::new();
    let host = server.host();
    let told = user.done(&["search", "--format", "{{.Name}}", &format!("{host}/app")]);
    assert_eq!(told, format!("{host}/a-app\n{host}/c-app\n"));
    let told = user.done(&[
        "search",
        "--limit",
        "1",
        "--format",
        "{{.Name}}",
        &format!("{host}/app"),
    ]);
    assert_eq!(told, format!("{host}/a-app\n"));
}

#[test]
fn a_registry_that_tells_nobody_what_it_has_is_told() {
    let turn = AtomicUsize::new(0);
    let server = Server::start(move |request| match &*request.path {
        "/v2/" => Response::new(200, "{}"),
        path if path.starts_with("/v2/_catalog") => match turn.fetch_add(1, Ordering::Relaxed) {
            0 => Response::new(404, "{}"),
            1 => Response::new(200, "no JSON"),
            2 => Response::new(403, "{}"),
            // Without an end, and nothing new in it.
            _ => Response::new(200, r#"{"repositories": ["app"]}"#)
                .header("Link", "</v2/_catalog?last=app>; rel=\"next\""),
        },
        _ => Response::new(404, "{}"),
    });
    let user = User::new();
    let text = format!("{}/app", server.host());
    for expected in [
        "tells nobody which images it has",
        "tells nobody",
        "kvmlet login",
    ] {
        let told = user.refused(&["search", &text]);
        assert!(told.contains(expected), "{told}");
    }
    let told = user.done(&["search", "--format", "{{.Name}}", &text]);
    assert_eq!(told, format!("{text}\n"));
}
