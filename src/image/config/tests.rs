//! Configurations as builders write them.

use super::*;
use std::time::Instant;

fn config(config: &str) -> Result<ImageConfig, Error> {
    ImageConfig::parse(
        format!(r#"{{"architecture":"amd64","os":"linux","config":{config}}}"#).as_bytes(),
    )
}

fn refused(json: &str, part: &str) {
    let error = config(json).unwrap_err().to_string();
    assert!(error.contains(part), "no {part:?} in {error:?}");
}

#[test]
fn all_of_it_is_read() {
    let digest = format!("sha256:{}", "0af1".repeat(16));
    let json = format!(
        r#"{{"created":"2026-01-01T00:00:00Z","architecture":"arm64","variant":"v8","os":"linux",
        "config":{{"User":"app:1000","ExposedPorts":{{"80/tcp":{{}},"53/udp":{{}},"9000-9002":{{}}}},
        "Env":["PATH=/bin","A=1","B=x=y","A=2"],"Entrypoint":["/entry","-v"],"Cmd":["serve"],
        "Volumes":{{"/data":{{}},"var//lib/./x/../y/":{{}}}},"WorkingDir":"app","Labels":{{"a":"b"}},
        "StopSignal":"SIGQUIT","Healthcheck":{{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Retries":2}},
        "OnBuild":null,"ArgsEscaped":true}},
        "rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"empty_layer":true}}]}}"#
    );
    let config = ImageConfig::parse(json.as_bytes()).unwrap();
    let variables: Vec<_> = config
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(variables, ["PATH=/bin", "A=2", "B=x=y"]);
    assert_eq!(
        (config.entrypoint.len(), &config.command[..]),
        (2, &["serve".to_owned()][..])
    );
    assert_eq!(config.layers[0].to_string(), digest);
    assert_eq!(config.platform.variant, "v8");
    assert_eq!(config.working_directory, "/app");
    assert_eq!(
        config.volumes.into_iter().collect::<Vec<_>>(),
        ["/data", "/var/lib/y"]
    );
    let ports: Vec<_> = config
        .ports
        .into_iter()
        .map(|it| (it.protocol, it.numbers))
        .collect();
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    assert_eq!(ports, [(tcp, 80..=80), (tcp, 9000..=9002), (udp, 53..=53)]);
    let user = Some(Account::Name("app".into()));
    assert_eq!(
        config.user,
        User {
            user,
            group: Some(Account::Id(1000))
        }
    );
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    let Some(Health::Test {
        test,
        interval,
        timeout,
        retries,
        ..
    }) = config.health
    else {
        panic!("{:?}", config.health);
    };
    assert_eq!(test, Test::Shell("curl -f localhost".into()));
    assert_eq!(
        (interval, timeout, retries),
        (Some(Duration::from_secs(5)), None, Some(2))
    );
}

#[test]
fn null_and_nothing_are_the_same() {
    let nothing = config("{}").unwrap();
    let nulls = r#"{"User":null,"ExposedPorts":null,"Env":null,"Entrypoint":null,"Cmd":null,"Volumes":null,
        "WorkingDir":null,"Labels":null,"StopSignal":null,"Healthcheck":null}"#;
    assert_eq!(config(nulls).unwrap(), nothing);
    assert_eq!(config("null").unwrap(), nothing);
    assert_eq!(
        config(r#"{"Healthcheck":{"Test":null,"Interval":null}}"#).unwrap(),
        nothing
    );
    assert_eq!(nothing.working_directory, "/");
    assert_eq!((nothing.user, nothing.health), (User::default(), None));
    assert_eq!(
        config(r#"{"Cmd":"one word"}"#).unwrap().command,
        ["one word"]
    );
    assert_eq!(ImageConfig::parse(b"{}").unwrap().platform.os, "");
    let disabled = config(r#"{"Healthcheck":{"Test":["NONE"]}}"#).unwrap();
    assert_eq!(disabled.health, Some(Health::Disabled));
}

#[test]
fn thousands_of_ranges_of_ports_cost_no_more_than_their_words() {
    let protocols = ["tcp", "udp", "sctp"];
    let ranges = (0..20_000).map(|number| {
        let (first, protocol) = (number / 3 + 1, protocols[number % 3]);
        format!(r#""{first}-65535/{protocol}":{{}}"#)
    });
    let ranges: Vec<String> = ranges.collect();
    let json = format!(r#"{{"ExposedPorts":{{{}}}}}"#, ranges.join(","));
    let started = Instant::now();
    let ports = config(&json).unwrap().ports;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(ports.iter().all(|ports| ports.numbers == (1..=65535)) && ports.len() == 3);
}

#[test]
fn ranges_of_ports_are_taken_together() {
    let ports = r#"{"ExposedPorts":{"80-90":{},"85-100/tcp":{},"101":{},"103/TCP":{},"82-83":{},"102/udp":{}}}"#;
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let ports = config(ports).unwrap().ports.into_iter();
    assert_eq!(
        ports
            .map(|it| (it.protocol, it.numbers))
            .collect::<Vec<_>>(),
        [(tcp, 80..=101), (tcp, 103..=103), (udp, 102..=102)]
    );
}

#[test]
fn users_are_names_or_numbers() {
    let user = |text: &str| config(&format!(r#"{{"User":"{text}"}}"#)).unwrap().user;
    let name = |name: &str| Some(Account::Name(name.into()));
    assert_eq!(
        user("1000"),
        User {
            user: Some(Account::Id(1000)),
            group: None
        }
    );
    assert_eq!(
        user(":grp"),
        User {
            user: None,
            group: name("grp")
        }
    );
    assert_eq!(
        user("app:"),
        User {
            user: name("app"),
            group: None
        }
    );
    assert_eq!(
        user("www-data:staff"),
        User {
            user: name("www-data"),
            group: name("staff")
        }
    );
    for wrong in ["4294967295", "4294967296", "a:b:c", "a/b"] {
        refused(
            &format!(r#"{{"User":"{wrong}"}}"#),
            &format!("the user of an image's configuration: `{wrong}`"),
        );
    }
}

#[test]
fn what_cannot_be_is_named() {
    for (json, part) in [
        (
            r#"{"ExposedPorts":{"0/tcp":{}}}"#,
            "an exposed port of an image's configuration: `0/tcp`",
        ),
        (r#"{"ExposedPorts":{"80/icmp":{}}}"#, "`80/icmp`"),
        (r#"{"ExposedPorts":{"9-8":{}}}"#, "`9-8`"),
        (r#"{"ExposedPorts":{"+80":{}}}"#, "`+80`"),
        (r#"{"ExposedPorts":{"":{}}}"#, "``"),
        (
            r#"{"Env":["A"]}"#,
            "a variable of an image's configuration: `A`",
        ),
        (r#"{"Env":["=A"]}"#, "`=A`"),
        (
            r#"{"Cmd":["a\u0000b"]}"#,
            r"the command of an image's configuration: `a\0b`",
        ),
        (r#"{"Healthcheck":{"Test":["CMD"]}}"#, "the health check"),
        (r#"{"Healthcheck":{"Test":["RUN","x"]}}"#, "`RUN`"),
        (
            r#"{"Healthcheck":{"Test":["CMD","x"],"Interval":-1}}"#,
            "`-1`",
        ),
        (r#"{"Env":"A=1"}"#, "not an image's configuration"),
        ("3", "not an image's configuration"),
    ] {
        refused(json, part);
    }
    for layer in [
        "",
        "sha256:12",
        "sha512:12",
        &format!("sha256:{}", "AB".repeat(32)),
    ] {
        let json = format!(r#"{{"rootfs":{{"diff_ids":["{layer}"]}}}}"#);
        let error = ImageConfig::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("a layer of an image's configuration"),
            "{error}"
        );
    }
    let long = vec![b' '; MAX_LENGTH + 1];
    assert!(matches!(ImageConfig::parse(&long), Err(Error::Long(_))));
}
