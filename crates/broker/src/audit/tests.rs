mod journal;
mod properties;
mod stuck;

use std::fs;
use std::path::Path;
use std::time::Duration;

use arcbroker_policy::{Caller, Identity, Unit};
use serde_json::Value;

use super::*;
use crate::clock::Now;
use crate::digest::Digest;
use crate::record::TokenFacts;

fn clock() -> Clock {
    Clock::from_fn(|| Now {
        wall: Duration::from_millis(1_774_000_000_123),
        boot: Duration::from_secs(9),
    })
}

fn caller() -> Caller {
    Caller {
        unit: Unit::parse("build@1.service").ok(),
        ..Caller::new(1001, 1002, Vec::new())
    }
}

fn record<'a>(log: &AuditLog, caller: &'a Caller, resource: &'a str) -> Record<'a> {
    Record {
        outcome: Outcome::Denied,
        id: log.next_id(),
        caller,
        user: Some("build"),
        pid: Some(7),
        invocation: Some("0123456789abcdef0123456789abcdef"),
        identity: Some(&Identity::System),
        resource: Some(resource),
        rule: None,
        policy: "0123456789ab",
        cache: None,
        took: Duration::from_millis(3),
        endpoint: None,
        stray: None,
        token: None,
    }
}

fn options(dir: &Path) -> Options {
    Options {
        file: Some(dir.join("audit")),
        journal: None,
        required: true,
    }
}

fn open(path: &Path) -> AuditLog {
    let options = Options {
        file: Some(path.to_owned()),
        ..options(path)
    };
    AuditLog::open(&options, clock()).unwrap()
}

/// What writes go to from now on.
fn replace_file(log: &AuditLog, with: fs::File) {
    let scribe = log.scribe.as_ref().unwrap();
    scribe.file.as_ref().unwrap().lock().unwrap().file.file = with;
}

/// Every further write fails, as on a broken disk: the descriptor is only for reading.
fn break_file(log: &AuditLog, path: &Path) {
    replace_file(log, fs::File::open(path).unwrap());
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_record_has_every_key_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("audit"));
    let caller = caller();
    let record = record(&log, &caller, "https://x");
    let facts = TokenFacts {
        expires_on: 99,
        uti: Some("u"),
        sha256: "abc",
    };
    let record = Record {
        outcome: Outcome::Issued,
        rule: Some("r"),
        cache: Some("cache"),
        token: Some(facts),
        ..record
    };
    log.record(&record).await.unwrap();
    let expected = format!(
        r#"{{"schema":1,"time":"2026-03-20T09:46:40.123Z","seq":1,"prev":"","id":"{}","outcome":"issued","uid":1001,"gid":1002,"user":"build","pid":7,"unit":"build@1.service","invocation":"0123456789abcdef0123456789abcdef","container":false,"identity":"system","resource":"https://x","rule":"r","policy":"0123456789ab","cache":"cache","ms":3,"expires_on":99,"uti":"u","token_sha256":"abc"}}"#,
        record.id
    );
    assert_eq!(lines(&dir.path().join("audit")), [expected]);
}

#[tokio::test]
async fn t27_whatever_a_caller_sends_stays_in_its_own_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let log = open(&path);
    let caller = caller();
    let hostile = [
        "a\nb",
        "\u{1b}[31m",
        "\",\"uid\":0,\"x\":\"",
        "\u{2028}",
        "\\",
        "\0",
        "{}",
    ];
    for text in hostile {
        log.record(&record(&log, &caller, text)).await.unwrap();
    }
    let lines = lines(&path);
    assert_eq!(lines.len(), hostile.len());
    for (line, text) in lines.iter().zip(hostile) {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&value["resource"], &value["uid"]),
            (&Value::from(text), &Value::from(1001))
        );
        assert!(!line.contains('\u{1b}'));
    }
}

#[tokio::test]
async fn i26_the_chain_goes_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let caller = caller();
    for _ in 0..3 {
        let log = open(&path);
        log.record(&record(&log, &caller, "https://x"))
            .await
            .unwrap();
        log.record_now(&record(&log, &caller, "https://y"));
    }
    let mut prev = String::new();
    for (index, line) in lines(&path).iter().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["seq"], index as u64 + 1);
        assert_eq!(value["prev"], prev);
        prev = Digest::of(line.as_bytes()).hex(16);
    }
    assert_eq!(prev.len(), 32);
}

#[tokio::test]
async fn records_of_one_turn_are_all_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let log = Arc::new(open(&path));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.record(&record(&log, &caller(), "https://x")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(lines(&path).len(), 100);
    assert_eq!(log.counts().denied, 100);
    assert_eq!(log.state().0, 100);
}

/// Begins a record, which cannot end before all that is in its turn of the event loop is written.
fn begin<'a>(log: &'a AuditLog, record: &'a Record<'a>) -> impl Future<Output = ()> + 'a {
    let mut future = Box::pin(log.record(record));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    async { future.await.unwrap() }
}

#[tokio::test]
async fn t23_of_one_caller_so_many_records_are_written_at_a_time_and_of_another_as_many() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("audit"));
    let (flood, other) = (caller(), Caller::new(7, 7, Vec::new()));
    let of_flood: Vec<_> = (0..3 * SHARE)
        .map(|_| record(&log, &flood, "https://x"))
        .collect();
    let of_other = record(&log, &other, "https://y");
    let begun: Vec<_> = of_flood.iter().map(|record| begin(&log, record)).collect();
    assert_eq!(log.counts().denied, SHARE as u64, "the others wait");
    begin(&log, &of_other).await;
    let place = lines(&dir.path().join("audit"))
        .iter()
        .position(|line| line.contains("https://y"));
    assert_eq!(place, Some(SHARE), "it is behind one share, not behind all");
    for record in begun {
        record.await;
    }
    assert_eq!(lines(&dir.path().join("audit")).len(), 3 * SHARE + 1);
}

#[tokio::test]
async fn t28_a_record_that_cannot_be_written_takes_the_decision_back_and_leaves_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let log = open(&path);
    let caller = caller();
    log.record(&record(&log, &caller, "https://x"))
        .await
        .unwrap();
    break_file(&log, &path);
    assert!(
        log.record(&record(&log, &caller, "https://lost"))
            .await
            .is_err()
    );
    assert!(log.state().1.is_some());
    fs::rename(&path, dir.path().join("audit.1")).unwrap();
    log.follow_rotation();
    log.record(&record(&log, &caller, "https://y"))
        .await
        .unwrap();
    assert!(log.state().1.is_none());
    let value: Value = serde_json::from_str(&lines(&path)[0]).unwrap();
    assert_eq!(value["seq"], 2);
}

#[tokio::test]
async fn where_records_are_not_required_a_lost_one_is_only_reported() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        required: false,
        ..options(dir.path())
    };
    let log = AuditLog::open(&options, clock()).unwrap();
    break_file(&log, &dir.path().join("audit"));
    log.record(&record(&log, &caller(), "https://x"))
        .await
        .unwrap();
    assert!(log.state().1.is_some());
}

#[tokio::test]
async fn a_record_is_written_also_when_its_request_ends_before_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let log = open(&path);
    let caller = caller();
    let record = record(&log, &caller, "https://x");
    {
        let mut ends = Box::pin(log.record(&record));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(ends.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(lines(&path).len(), 1);
}
