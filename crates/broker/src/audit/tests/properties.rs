//! Whatever a caller, a name or a rule holds.

use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::*;

/// Texts with everything that JSON, a terminal or a reader of lines could stumble over.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        proptest::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
        Just("\n{\"schema\":1,\"outcome\":\"issued\"}\n".to_owned()),
        Just("\",\"uid\":0,\"".to_owned()),
        Just("\u{1b}[2J\u{9b}1m\u{7f}\r".to_owned()),
        Just("\u{202e}\u{2066}\u{feff}\u{2028}".to_owned()),
        Just("\\u0000\\\0".to_owned()),
        Just("\u{10348}\u{1f600}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..4)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("longer texts are cut", |text| text.len() <= 1024)
}

/// Characters that are no control characters and yet are not seen, or reorder others.
const HIDDEN: [RangeInclusive<char>; 4] = [
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{2069}',
    '\u{feff}'..='\u{feff}',
];

#[derive(Clone, Debug)]
struct Asked {
    caller: Caller,
    user: Option<String>,
    pid: Option<i32>,
    resource: Option<String>,
    rule: Option<String>,
    uti: Option<String>,
    expires_on: u64,
}

prop_compose! {
    fn asked()(
        uid in any::<u32>(),
        gid in any::<u32>(),
        user in proptest::option::of(hostile()),
        pid in any::<Option<i32>>(),
        resource in proptest::option::of(hostile()),
        rule in proptest::option::of(hostile()),
        uti in proptest::option::of(hostile()),
        expires_on in any::<u64>(),
    ) -> Asked {
        let caller = Caller { uid, gid, ..caller() };
        Asked { caller, user, pid, resource, rule, uti, expires_on }
    }
}

impl Asked {
    fn record<'a>(&'a self, log: &AuditLog) -> Record<'a> {
        let facts = TokenFacts {
            expires_on: self.expires_on,
            uti: self.uti.as_deref(),
            sha256: "0123456789ab",
        };
        Record {
            outcome: Outcome::Issued,
            caller: &self.caller,
            user: self.user.as_deref(),
            pid: self.pid,
            resource: self.resource.as_deref(),
            rule: self.rule.as_deref(),
            token: Some(facts),
            ..record(log, &self.caller, "")
        }
    }

    fn is(&self, told: &Value) -> bool {
        let expected = serde_json::json!([
            self.caller.uid,
            self.caller.gid,
            self.user,
            self.pid,
            self.resource,
            self.rule,
            self.uti,
            self.expires_on
        ]);
        let keys = [
            "uid",
            "gid",
            "user",
            "pid",
            "resource",
            "rule",
            "uti",
            "expires_on",
        ];
        expected == Value::from(keys.map(|key| told[key].clone()).to_vec())
    }
}

proptest! {
    #[test]
    fn t27_every_record_is_one_line_that_says_exactly_what_went_in(
        all in proptest::collection::vec(asked(), 1..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let log = open(&path);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for asked in &all {
            runtime.block_on(log.record(&asked.record(&log))).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_plain = |c: char| !c.is_control() && !HIDDEN.iter().any(|range| range.contains(&c));
        prop_assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{text:?}");
        let told: Vec<Value> = text
            .split_terminator('\n')
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        prop_assert_eq!(told.len(), all.len());
        for (told, asked) in told.iter().zip(&all) {
            prop_assert!(asked.is(told), "{told} is not {asked:?}");
        }
    }

    #[test]
    fn no_record_is_longer_than_a_datagram_holds(text in "\\PC{0,3}[\u{0}-\u{1f}]{2000,3000}") {
        let unit = format!("{}.service", "x".repeat(247));
        let asked = Asked {
            caller: Caller { unit: Unit::parse(&unit).ok(), ..caller() },
            user: Some(text.clone()),
            pid: Some(i32::MIN),
            resource: Some(text.clone()),
            rule: Some(text.clone()),
            uti: Some(text),
            expires_on: u64::MAX,
        };
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir.path().join("audit"));
        log.record_now(&asked.record(&log));
        let line = &lines(&dir.path().join("audit"))[0];
        prop_assert!(line.len() < 60 * 1024, "{}", line.len());
        let told: Value = serde_json::from_str(line).unwrap();
        prop_assert_eq!(told["user"].as_str().unwrap().len(), 1024);
        prop_assert_eq!(&told["unit"], &unit);
    }
}
