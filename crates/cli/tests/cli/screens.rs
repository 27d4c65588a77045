//! `arcbroker whoami`, `status`, `flush` and `refresh`

use serde_json::Value;

use crate::support::{Broker, answer, refusal};

const WHOAMI: &str = r#"{"schema":1,"uid":7,"user":"b\u001bob","gid":8,"groups":[8,9],"pid":5,"unit":"web.service","invocation":null,"container":true,"resources":[{"resource":"arm","identity":"system","rule":"r\u009b1"}]}"#;

fn status(health: &str) -> String {
    let body = format!(
        r#"{{"schema":1,"version":"0.1.0","pid":1,"started_at":1,"uptime_seconds":60,"health":"{health}",
        "reasons":["\u001b]0;title\u0007why"],"outage_budget_seconds":null,
        "upstream":{{"kind":"himds","endpoint":"http://127.0.0.1:40342","last_success_at":null,"last_failure_at":null,"last_failure":null,"token_requests":0}},
        "policy":{{"dir":"/p","hash":"0","rules":0,"loaded_at":1,"reload_error":null,"warnings":[]}},
        "audit":{{"file":null,"required":true,"sequence":0,"error":null}},
        "tokens":[],"requests":{{"issued":0,"denied":0,"malformed":0,"unavailable":0,"abandoned":0}},
        "connections":{{"open":1,"refused":0}}}}"#
    );
    answer(200, "", &body)
}

#[test]
fn whoami_is_a_table_or_json() {
    let broker = Broker::answering(vec![answer(200, "", WHOAMI)]);
    let ran = broker.run("whoami");
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.stdout,
        "User       7 (bob)\nGroup      8\nGroups     8 9\nProcess    5\n\
         Unit       web.service\nContainer  yes: only rules with `container = true` hold\n\n\
         RESOURCE  IDENTITY  RULE\narm       system    r1\n"
    );

    let ran = broker.run("whoami --json");
    assert_eq!((ran.code, ran.stdout.matches('\n').count()), (0, 1));
    assert!(
        !ran.stdout.trim_end().chars().any(char::is_control),
        "{:?}",
        ran.stdout
    );
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told, serde_json::from_str::<Value>(WHOAMI).unwrap());
}

#[test]
fn status_says_health_with_its_exit_code() {
    for (health, code) in [
        ("healthy", 0),
        ("degraded", 1),
        ("starting", 1),
        ("failing", 2),
    ] {
        let broker = Broker::answering(vec![status(health)]);
        let ran = broker.run("status");
        assert_eq!(ran.code, code, "{health}");
        let first = format!("{health}   arcbrokerd 0.1.0, pid 1, up 1 min\n  - ]0;titlewhy\n");
        assert!(ran.stdout.starts_with(&first), "{:?}", ran.stdout);
        assert!(broker.requests()[0].starts_with("GET /v1/status HTTP/1.1\r\n"));

        let ran = broker.run("status --json");
        assert_eq!(ran.code, code, "{health}");
        let told: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(told["health"], health);
    }
}

#[test]
fn no_failure_of_status_looks_like_a_health() {
    for answer in [
        refusal(403, "", "no"),
        refusal(500, "", "no"),
        refusal(404, "", "no"),
        String::new(),
    ] {
        assert_eq!(Broker::answering(vec![answer]).run("status").code, 4);
    }
}

#[test]
fn flush_and_refresh_tell_how_many_tokens_they_are_about() {
    let tokens = |number| answer(200, "", &format!(r#"{{"schema":1,"tokens":{number}}}"#));
    for (line, number, told, request) in [
        ("flush", 2, "2 tokens dropped\n", "POST /v1/flush HTTP/1.1"),
        (
            "flush https://x/",
            1,
            "1 token dropped\n",
            "POST /v1/flush?resource=https%3A%2F%2Fx%2F HTTP/1.1",
        ),
        (
            "refresh keyvault",
            0,
            "0 tokens asked for anew\n",
            "POST /v1/refresh?resource=keyvault HTTP/1.1",
        ),
    ] {
        let broker = Broker::answering(vec![tokens(number)]);
        let ran = broker.run(line);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (0, told),
            "{line}: {ran:?}"
        );
        let head = &broker.requests()[0];
        assert!(head.starts_with(&format!("{request}\r\n")), "{head}");
    }
    let ran = Broker::answering(vec![refusal(400, "", "no such name")]).run("flush keyvlt");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no such name"), "{ran:?}");
}
