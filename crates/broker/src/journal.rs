//! Records in the journal: an entry with a field for each key, by journald's native protocol.
//!
//! An entry is one datagram of lines `FIELD=value`. A value with a newline in it is written as the
//! field's name, a newline, the length in eight bytes (little endian), the value and a newline:
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. Larger ones than a datagram holds would go as a
//! sealed memfd; ours are at most a third of what every Linux lets a socket send.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, UnixAddr, sendto};
use serde_json::{Map, Value};

use crate::lane::{AuditError, Taken};
use crate::record::visible;

/// How long an entry may wait for a journal that has not read the ones before.
const PATIENCE: Duration = Duration::from_millis(250);

/// What `journalctl --identifier` finds.
pub(crate) const IDENTIFIER: &str = "arcbrokerd";

/// The way to the journal. Its socket is named in each entry: whoever serves it may change.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) path: PathBuf,
    socket: UnixDatagram,
    address: UnixAddr,
    /// Whether the last entry was taken.
    works: bool,
}

impl Journal {
    /// Makes a socket of our own; nobody need listen at `path` yet.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let fail = |error: io::Error| AuditError::new(path, &error);
        let address = UnixAddr::new(path).map_err(|errno| fail(errno.into()))?;
        let socket = UnixDatagram::unbound().map_err(fail)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            socket,
            address,
            works: true,
        })
    }

    /// Whether there is a socket, as on every system with journald.
    pub(crate) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|there| there.file_type().is_socket())
    }

    /// Sends an entry for each line as far as they are taken. Waits for a journal that is behind if
    /// `wait`, and while it has not yet kept us waiting in vain.
    pub(crate) fn take(&mut self, lines: &[u8], wait: bool) -> Taken {
        let mut taken = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let flags = if wait || self.works {
                MsgFlags::MSG_NOSIGNAL
            } else {
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT
            };
            let entry = entry(line.strip_suffix(b"\n").unwrap_or(line));
            let sent = sendto(self.socket.as_raw_fd(), &entry, &self.address, flags);
            self.works = sent.is_ok();
            if let Err(errno) = sent {
                let reason = match errno {
                    nix::errno::Errno::EAGAIN => "journald does not read".to_owned(),
                    errno => io::Error::from(errno).to_string(),
                };
                return (taken, Err(AuditError::new(&self.path, &reason)));
            }
            taken += line.len();
        }
        (taken, Ok(()))
    }
}

/// The datagram for one line of the audit file.
fn entry(line: &[u8]) -> Vec<u8> {
    let record: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let mut entry = Vec::with_capacity(3 * line.len() + 512);
    field(&mut entry, "MESSAGE", &message(&record));
    field(&mut entry, "PRIORITY", priority(&text(&record, "outcome")));
    field(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    for (key, value) in &record {
        let name = format!("ARCBROKER_{}", key.to_ascii_uppercase());
        match value {
            Value::Null => {}
            Value::String(text) => field(&mut entry, &name, text),
            other => field(&mut entry, &name, &other.to_string()),
        }
    }
    field(
        &mut entry,
        "ARCBROKER_RECORD",
        &String::from_utf8_lossy(line),
    );
    entry
}

/// Adds one.
pub(crate) fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// One line for people, in which nothing hides; the fields beside it are for programs, and hold what
/// was there.
fn message(record: &Map<String, Value>) -> String {
    let get = |key| visible(&text(record, key), &[]);
    let part = |key, before, after| match get(key) {
        value if value.is_empty() => String::new(),
        value => format!("{before}{value}{after}"),
    };
    let why = match text(record, "outcome").as_str() {
        "issued" => part("rule", "allowed by rule \"", "\""),
        "denied" => "no rule allows it".to_owned(),
        "malformed" => "sent a request that cannot be judged".to_owned(),
        "unavailable" => match part("rule", "allowed by rule \"", "\", but there is no token") {
            none if none.is_empty() => {
                "it is not known yet which cloud the machine is in".to_owned()
            }
            rule => rule,
        },
        _ => "went away before the answer".to_owned(),
    };
    format!(
        "{}: uid {}{}{}{} {why} (request {})",
        get("outcome"),
        get("uid"),
        part("user", " (", ")"),
        part("unit", " in ", ""),
        part("resource", " asks for ", ":"),
        get("id")
    )
}

fn text(record: &Map<String, Value>, key: &str) -> String {
    match record.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Of syslog(3): what an administrator should look at is a warning.
fn priority(outcome: &str) -> &'static str {
    const WARNING: &str = "4";
    const NOTICE: &str = "5";
    const INFO: &str = "6";
    match outcome {
        "issued" | "abandoned" => INFO,
        "malformed" => NOTICE,
        _ => WARNING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"schema":1,"seq":7,"id":"a-1","outcome":"denied","uid":1001,"user":"b\nu","pid":null,"container":false,"resource":"https://x","rule":null}"#;

    fn written(entry: &[u8]) -> String {
        String::from_utf8_lossy(entry).into_owned()
    }

    #[test]
    fn an_entry_has_a_field_for_each_key_and_the_line_itself() {
        let entry = written(&entry(LINE.as_bytes()));
        let length = "\u{3}\0\0\0\0\0\0\0";
        assert_eq!(
            entry,
            format!(
                "MESSAGE=denied: uid 1001 (b\\nu) asks for https://x: no rule allows it (request a-1)\n\
                 PRIORITY=4\nSYSLOG_IDENTIFIER=arcbrokerd\nARCBROKER_CONTAINER=false\nARCBROKER_ID=a-1\n\
                 ARCBROKER_OUTCOME=denied\nARCBROKER_RESOURCE=https://x\nARCBROKER_SCHEMA=1\nARCBROKER_SEQ=7\n\
                 ARCBROKER_UID=1001\nARCBROKER_USER\n{length}b\nu\nARCBROKER_RECORD={LINE}\n"
            )
        );
    }

    #[test]
    fn the_message_names_the_unit_and_no_rule_that_there_is_not() {
        for (rule, why) in [
            ("null", "it is not known yet which cloud the machine is in"),
            (
                r#""nightly backup""#,
                "allowed by rule \"nightly backup\", but there is no token",
            ),
        ] {
            let line = format!(
                r#"{{"id":"a-1","outcome":"unavailable","uid":0,"user":"root","unit":"backup.service","resource":"https://x","rule":{rule}}}"#
            );
            let record = serde_json::from_str(&line).unwrap();
            assert_eq!(
                message(&record),
                format!(
                    "unavailable: uid 0 (root) in backup.service asks for https://x: {why} (request a-1)"
                )
            );
        }
    }

    #[test]
    fn nothing_hides_in_the_message() {
        let line = r#"{"id":"a-1","outcome":"denied","uid":1,"user":"gnp\u202eexe\u200b\u001b[2J","resource":"https://x"}"#;
        let record = serde_json::from_str(line).unwrap();
        assert_eq!(
            message(&record),
            r"denied: uid 1 (gnp\u{202e}exe\u{200b}\u{1b}[2J) asks for https://x: no rule allows it (request a-1)"
        );
    }

    #[test]
    fn what_needs_attention_has_a_higher_priority() {
        for (outcome, level) in [
            ("issued", "6"),
            ("abandoned", "6"),
            ("malformed", "5"),
            ("denied", "4"),
            ("unavailable", "4"),
        ] {
            assert_eq!(priority(outcome), level, "{outcome}");
        }
    }

    #[test]
    fn each_line_is_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut journal = Journal::open(&path).unwrap();
        assert!(!journal.is_there());
        assert_eq!(journal.take(b"{}\n", true).0, 0);
        let listener = UnixDatagram::bind(&path).unwrap();
        assert!(journal.is_there());
        let (taken, result) = journal.take(b"{\"seq\":1}\n{\"seq\":2}\n", true);
        assert_eq!((taken, result.is_ok()), (20, true));
        for seq in 1..=2 {
            let mut entry = [0; 1024];
            let length = listener.recv(&mut entry).unwrap();
            let entry = written(&entry[..length]);
            assert!(
                entry.contains(&format!("\nARCBROKER_SEQ={seq}\n")),
                "{entry}"
            );
        }
    }

    #[test]
    fn a_journal_that_does_not_read_is_waited_for_once_and_gets_whole_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let lines = "{\"seq\":1}\n".repeat(10_000);
        let (taken, result) = journal.take(lines.as_bytes(), false);
        assert!(taken < lines.len() && taken % 10 == 0, "{taken}");
        let why = result.unwrap_err().to_string();
        assert!(why.ends_with("journald does not read"), "{why}");
        assert_eq!(journal.take(lines.as_bytes(), false).0, 0);
        listener.set_nonblocking(true).unwrap();
        let mut entry = [0; 1024];
        let heard = std::iter::from_fn(|| listener.recv(&mut entry).ok()).count();
        assert_eq!(heard, taken / 10);
        assert!(journal.take(b"{}\n", false).1.is_ok());
    }
}
