//! The two sinks beside each other.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;

use super::*;

/// Stands in for journald.
struct Listener(UnixDatagram);

impl Listener {
    fn bind(dir: &Path) -> Self {
        let path = dir.join("journal");
        fs::remove_file(&path).unwrap_or_default();
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// The lines that have come since the last call.
    fn heard(&self) -> Vec<String> {
        let mut entry = vec![0; 64 * 1024];
        let mut next = || {
            let length = self.0.recv(&mut entry).ok()?;
            Some(fields(&entry[..length])["ARCBROKER_RECORD"].clone())
        };
        std::iter::from_fn(&mut next).collect()
    }
}

impl Drop for Listener {
    /// Nobody listens from now on, even if a child that another test starts at this moment holds a copy until
    /// its `exec`.
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).unwrap();
    }
}

fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry
            .iter()
            .position(|byte| matches!(byte, b'=' | b'\n'))
            .unwrap();
        let (name, value) = (&entry[..end], &entry[end + 1..]);
        let (value, left) = if entry[end] == b'=' {
            let end = value.iter().position(|&byte| byte == b'\n').unwrap();
            (&value[..end], &value[end + 1..])
        } else {
            let length =
                usize::try_from(u64::from_le_bytes(value[..8].try_into().unwrap())).unwrap();
            assert_eq!(value[8 + length], b'\n');
            (&value[8..8 + length], &value[9 + length..])
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(fields.insert(text(name), text(value)), None);
        entry = left;
    }
    fields
}

fn both(dir: &Path) -> Options {
    Options {
        journal: Some(dir.join("journal")),
        ..options(dir)
    }
}

async fn ask(log: &AuditLog, resource: &str) -> Result<(), AuditError> {
    log.record(&record(log, &caller(), resource)).await
}

fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64();
    lines.iter().map(|line| number(line).unwrap()).collect()
}

/// That each line carries the digest of the one before.
pub(super) fn assert_whole(lines: &[String]) {
    for pair in lines.windows(2) {
        let next: Value = serde_json::from_str(&pair[1]).unwrap();
        assert_eq!(
            next["prev"],
            Digest::of(pair[0].as_bytes()).hex(16),
            "{pair:#?}"
        );
    }
}

#[tokio::test]
async fn both_sinks_have_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(dir.path());
    let log = AuditLog::open(&both(dir.path()), clock()).unwrap();
    for _ in 0..3 {
        ask(&log, "https://x").await.unwrap();
    }
    assert_eq!(listener.heard(), lines(&dir.path().join("audit")));
}

#[tokio::test]
async fn t28_while_the_file_fails_the_journal_is_enough_and_the_file_gets_everything_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let listener = Listener::bind(dir.path());
    let log = AuditLog::open(&both(dir.path()), clock()).unwrap();
    ask(&log, "https://1").await.unwrap();
    break_file(&log, &path);
    for resource in ["https://2", "https://3"] {
        ask(&log, resource).await.unwrap();
    }
    let (file, journal) = log.sinks();
    let (file, journal) = (file.unwrap(), journal.unwrap());
    assert!(file.error.is_some() && journal.error.is_none());
    assert_eq!((file.waiting, file.missed, journal.waiting), (2, 0, 0));
    assert_eq!((log.state().0, log.state().1.is_none()), (3, true));

    replace_file(&log, fs::File::options().append(true).open(&path).unwrap());
    log.follow_rotation();
    let written = lines(&path);
    assert_eq!(numbers(&written), [1, 2, 3]);
    assert_whole(&written);
    assert_eq!(listener.heard(), written);
    assert_eq!(log.sinks().0.unwrap().waiting, 0);
}

#[tokio::test]
async fn t28_without_any_sink_there_is_no_record_and_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let listener = Listener::bind(dir.path());
    let log = AuditLog::open(&both(dir.path()), clock()).unwrap();
    break_file(&log, &path);
    ask(&log, "https://1").await.unwrap();
    let heard = listener.heard();
    drop(listener);
    let error = ask(&log, "https://lost").await.unwrap_err();
    assert!(
        error.to_string().starts_with(path.to_str().unwrap()),
        "{error}"
    );
    assert_eq!(log.state().0, 1);
    assert!(log.state().1.is_some());

    let listener = Listener::bind(dir.path());
    ask(&log, "https://2").await.unwrap();
    let heard = [heard, listener.heard()].concat();
    assert_eq!(numbers(&heard), [1, 2]);
    assert_whole(&heard);
    assert!(log.state().1.is_none());
}

#[tokio::test]
async fn what_the_journal_did_not_take_it_gets_later() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(dir.path());
    let log = AuditLog::open(&both(dir.path()), clock()).unwrap();
    drop(listener);
    for _ in 0..3 {
        ask(&log, "https://x").await.unwrap();
    }
    let journal = log.sinks().1.unwrap();
    assert!(journal.error.is_some());
    assert_eq!((journal.waiting, log.state().1.is_none()), (3, true));
    let listener = Listener::bind(dir.path());
    log.follow_rotation();
    assert_eq!(listener.heard(), lines(&dir.path().join("audit")));
}

#[tokio::test]
async fn a_journal_that_comes_later_is_found_and_owed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&both(dir.path()), clock()).unwrap();
    ask(&log, "https://x").await.unwrap();
    let journal = log.sinks().1.unwrap();
    assert!(journal.is_absent && journal.error.is_none());
    let listener = Listener::bind(dir.path());
    log.follow_rotation();
    assert!(!log.sinks().1.unwrap().is_absent);
    ask(&log, "https://y").await.unwrap();
    assert_eq!(numbers(&listener.heard()), [2]);
}

#[tokio::test]
async fn the_journal_alone_is_enough_and_must_be_there_where_records_are_required() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        file: None,
        ..both(dir.path())
    };
    let error = AuditLog::open(&options, clock()).unwrap_err();
    assert!(
        error.to_string().ends_with("there is no journal"),
        "{error}"
    );
    let lax = Options {
        required: false,
        ..options.clone()
    };
    let log = AuditLog::open(&lax, clock()).unwrap();
    ask(&log, "https://x").await.unwrap();
    assert!(log.state().1.is_some());

    let listener = Listener::bind(dir.path());
    let log = AuditLog::open(&options, clock()).unwrap();
    ask(&log, "https://x").await.unwrap();
    assert_eq!(numbers(&listener.heard()), [1]);
}
