//! `arcbroker audit`

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use crate::{place::Place, support::command};

/// Two records of a daemon; the digest in the second one is that of the first.
const FIRST: &str = r#"{"schema":1,"time":"2026-11-24T00:00:01.000Z","seq":1,"prev":"","id":"a-1","outcome":"denied","uid":7,"gid":7,"user":null,"pid":5,"unit":null,"invocation":null,"container":false,"identity":"system","resource":"https://vault.azure.net","rule":null,"policy":"305adb5b50c5","cache":null,"ms":0,"expires_on":null,"uti":null,"token_sha256":null}"#;

fn second() -> String {
    let prev = arcbroker_client::chain::digest(FIRST.as_bytes());
    FIRST
        .replace(
            "\"seq\":1,\"prev\":\"\"",
            &format!("\"seq\":2,\"prev\":\"{prev}\""),
        )
        .replace(":01.000Z", ":02.000Z")
}

#[test]
fn a_whole_chain_is_told_from_a_broken_one() {
    let place = Place::new();
    place.write("audit.jsonl.1", &format!("{FIRST}\n"));
    place.write("audit.jsonl", &format!("{}\n", second()));
    let ran = place.run("audit verify");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            0,
            "whole: 2 records in 2 files from 2026-11-24T00:00:01.000Z to 2026-11-24T00:00:02.000Z\n"
        )
    );
    place.write(
        "audit.jsonl.1",
        &format!("{}\n", FIRST.replace("\"uid\":7", "\"uid\":8")),
    );
    let ran = place.run("audit verify");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout
            .starts_with("DIR/audit.jsonl:1: record 2 does not belong to the line before it"),
        "{ran:?}"
    );
    let ran = place.run("audit verify audit.jsonl");
    assert!(
        ran.code == 0 && ran.stdout.contains("the first is record 2"),
        "{ran:?}"
    );
    let json = place.run("audit verify --json").stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["faults"], &json["records"]), (&1.into(), &2.into()));
    assert_eq!(place.run("audit verify nowhere").code, 1);
}

#[test]
fn tail_prints_the_last_records_and_goes_on_over_a_rotation() {
    let place = Place::new();
    place.write("audit.jsonl", &format!("{FIRST}\n{}\n", second()));
    let ran = place.run("audit tail -n 1");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            0,
            "2026-11-24T00:00:02.000Z denied      7 https://vault.azure.net 0 ms\n"
        )
    );
    let mut child = command("audit tail --follow -n 1")
        .arg(place.path("audit.jsonl"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(":02.000Z"));
    fs::rename(place.path("audit.jsonl"), place.path("audit.jsonl.1")).unwrap();
    place.write(
        "audit.jsonl",
        &format!("{}\n", FIRST.replace(":01.000Z", ":03.000Z")),
    );
    assert!(lines.next().unwrap().unwrap().contains(":03.000Z"));
    child.kill().unwrap();
    child.wait().unwrap();
}
