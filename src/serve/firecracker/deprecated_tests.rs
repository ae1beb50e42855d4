//! What clients still say, and are told to say no more.

use super::*;
use crate::http::Method;
use kvmlet_spec::JailMode;

#[test]
fn what_is_deprecated_is_answered_so() {
    let mut log = Log::new("test");
    log.set(None, Some(super::super::model::Level::Off), None, None)
        .unwrap();
    let mut vm = Vm::new("test".into(), log, Machine::default(), JailMode::Auto, None);
    let mut ask = |method, path: &str, body: &str| {
        let request = Request {
            method,
            path: path.into(),
            query: String::new(),
            body: body.into(),
            closes: false,
            is_old: false,
            chunks: true,
            upgrade: None,
            coming: None,
        };
        vm.handle(&request).expect("nothing was asked of a VM")
    };
    let machine = r#"{"vcpu_count": 1, "mem_size_mib": 64"#;
    for (method, path, body, expected) in [
        (
            Method::Put,
            "/machine-config",
            &*format!("{machine}}}"),
            false,
        ),
        (
            Method::Put,
            "/machine-config",
            &*format!(r#"{machine}, "cpu_template": "None"}}"#),
            true,
        ),
        (
            Method::Patch,
            "/machine-config",
            r#"{"cpu_template": "None"}"#,
            true,
        ),
        (
            Method::Patch,
            "/machine-config",
            r#"{"vcpu_count": 2}"#,
            false,
        ),
        (
            Method::Put,
            "/vsock",
            r#"{"guest_cid": 3, "uds_path": "v"}"#,
            false,
        ),
        (
            Method::Put,
            "/vsock",
            r#"{"guest_cid": 3, "uds_path": "v", "vsock_id": "v"}"#,
            true,
        ),
    ] {
        let answer = ask(method, path, body);
        assert_eq!(
            (answer.status, answer.is_deprecated),
            (204, expected),
            "{path} {body}"
        );
    }
    // It is as if nothing had been said.
    let told = ask(Method::Get, "/machine-config", "").body.unwrap();
    assert!(
        told.contains("vcpu_count") && !told.contains("cpu_template"),
        "{told}"
    );
    for (name, part) in [
        (
            "T2",
            "takes what Firecracker's sources have for this name in tests/data/custom_cpu_templates/T2.json",
        ),
        (
            "T2CL",
            "cpu_template `T2CL` is not supported: the guest sees",
        ),
        // Firecracker knows it where processors are ARM's.
        (
            "V1N1",
            "unknown variant `V1N1`, expected one of `C3`, `T2`, `T2S`, `None`, `T2CL`, `T2A`",
        ),
    ] {
        let body = format!(r#"{machine}, "cpu_template": "{name}"}}"#);
        let answer = ask(Method::Put, "/machine-config", &body);
        let told = answer.body.unwrap();
        assert!(answer.status == 400 && told.contains(part), "{told}");
        assert!(told.starts_with(r#"{"fault_message":"#), "{told}");
    }
}
