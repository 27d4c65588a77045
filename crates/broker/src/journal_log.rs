//! Logs in the journal: an entry for each event, with its importance and a field for each value.
//!
//! `tracing-journald` would leave the values out of the message, and `journalctl` shows nothing else.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::journal::{IDENTIFIER, field};
use crate::record::visible;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Lines of a message stay lines.
const LINES: &[char] = &['\n', '\t'];

/// Sends events to the journal, and waits for it at no time: a journal that hangs must not hold up the daemon.
#[derive(Debug)]
pub(crate) struct JournalLog {
    socket: UnixDatagram,
    /// Named with each entry: whoever serves it may change.
    path: PathBuf,
    /// Events that it did not take, since it last took one.
    lost: AtomicU64,
}

/// The values of one event, as a message and as fields.
#[derive(Default)]
struct Values {
    message: String,
    rest: String,
    entry: Vec<u8>,
}

impl JournalLog {
    /// Where what is written to standard error goes to the journal, as `JOURNAL_STREAM` says of it.
    pub(crate) fn open(stream: Option<&str>) -> Option<Self> {
        is_stream(stream?, io::stderr()).then_some(())?;
        Self::to(Path::new(SOCKET)).ok()
    }

    fn to(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            lost: AtomicU64::new(0),
        })
    }
}

/// Whether this is the descriptor with the device and the inode of `DEVICE:INODE`.
fn is_stream(stream: &str, descriptor: impl AsFd) -> bool {
    let mut numbers = stream.splitn(2, ':').map(str::parse);
    let (Some(Ok(device)), Some(Ok(inode))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    fstat(descriptor).is_ok_and(|there| (there.st_dev, there.st_ino) == (device, inode))
}

impl<S: Subscriber> Layer<S> for JournalLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        let metadata = event.metadata();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let before = match lost {
            0 => String::new(),
            lost => format!(" (the journal did not take {lost} messages before this)"),
        };
        let message = format!("{}{}{before}", values.message, values.rest);
        let mut entry = values.entry;
        field(&mut entry, "MESSAGE", &message);
        field(&mut entry, "PRIORITY", priority(*metadata.level()));
        field(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            field(&mut entry, "CODE_FILE", file);
            field(&mut entry, "CODE_LINE", &line.to_string());
        }
        if self.socket.send_to(&entry, &self.path).is_err() {
            self.lost
                .fetch_add(lost.saturating_add(1), Ordering::Relaxed);
        }
    }
}

impl Values {
    fn add(&mut self, name: &str, value: &str) {
        if name == "message" {
            self.message = visible(value, LINES);
            return;
        }
        write!(self.rest, " {name}={}", visible(value, LINES)).unwrap_or_default();
        let name = format!("ARCBROKER_{}", name.to_ascii_uppercase());
        field(&mut self.entry, &name, value);
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format!("{value:?}"));
    }
}

/// Of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn an_event_is_an_entry_with_its_values_in_the_message_and_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(JournalLog::to(&path).is_err(), "nobody listens yet");
        let journal = UnixDatagram::bind(&path).unwrap();
        let log = JournalLog::to(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(log);
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no\u{1b}[2J");
            tracing::warn!(uid = 7, user = "root", %error, "it\nfailed");
        });
        let mut entry = [0; 1024];
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]);
        let message = "it\nfailed uid=7 user=root error=no\\u{1b}[2J";
        let (length, file) = (message.len(), file!());
        let length = String::from_utf8((length as u64).to_le_bytes().to_vec()).unwrap();
        let expected = format!(
            "ARCBROKER_UID=7\nARCBROKER_USER=root\nARCBROKER_ERROR=no\u{1b}[2J\nMESSAGE\n{length}{message}\nPRIORITY=4\n\
             SYSLOG_IDENTIFIER=arcbrokerd\nCODE_FILE={file}\nCODE_LINE="
        );
        assert!(entry.starts_with(&expected), "{entry:?}");
    }

    #[test]
    fn a_journal_that_does_not_read_is_not_waited_for_and_is_told_of_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(JournalLog::to(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..10_000 {
                tracing::info!(number, "again");
            }
            let mut entry = [0; 1024];
            journal.set_nonblocking(true).unwrap();
            let taken = std::iter::from_fn(|| journal.recv(&mut entry).ok()).count();
            assert!((1..10_000).contains(&taken), "{taken}");
            tracing::info!("at last");
            let length = journal.recv(&mut entry).unwrap();
            let entry = String::from_utf8_lossy(&entry[..length]);
            let told = format!(
                "at last (the journal did not take {} messages before this)",
                10_000 - taken
            );
            assert!(entry.contains(&told), "{entry}");
        });
    }

    #[test]
    fn the_journal_is_only_where_the_variable_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let (file, there) = (fs::File::open(&path).unwrap(), fs::metadata(&path).unwrap());
        let (device, inode) = (there.dev(), there.ino());
        assert!(is_stream(&format!("{device}:{inode}"), &file));
        for other in [
            format!("{device}:{}", inode + 1),
            format!("{inode}"),
            String::new(),
            "a:b".to_owned(),
        ] {
            assert!(!is_stream(&other, &file), "{other}");
        }
    }
}
