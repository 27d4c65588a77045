//! `arcbroker audit tail`

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use arcbroker_client::wire::AuditRecord;

use crate::{
    audit::Error,
    exit::{Exit, Failure},
    output::Page,
};

/// How often a file that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(200);
const BLOCK: u64 = 64 * 1024;
/// Bytes of a line that does not end; the daemon's are far shorter.
const LONGEST: usize = 1024 * 1024;

pub(super) fn run(
    config: Option<&Path>,
    named: Option<&Path>,
    lines: usize,
    follow: bool,
) -> Result<Exit, Failure> {
    let path = super::file(config, named)?;
    let mut tail = Tail::open(path.clone()).map_err(|error| Error::read(&path, error))?;
    let failed = |error| Failure::from(Error::read(&path, error));
    tail.back_to(lines).map_err(failed)?;
    loop {
        let text = tail.read().map_err(failed)?;
        let is_idle = text.is_empty();
        print(&text)?;
        if !is_idle {
            continue;
        }
        if !follow {
            return Ok(Exit::OK);
        }
        pause();
        tail.follow().map_err(failed)?;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing else is done in this process"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn print(lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut page = Page::new();
    for line in lines {
        page.line(&readable(line));
    }
    page.print()
}

/// A record as a line for people; what is none, as it is.
fn readable(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<AuditRecord>(line) else {
        return line.to_owned();
    };
    let user = match &record.user {
        Some(user) => format!("{user}({})", record.uid),
        None => record.uid.to_string(),
    };
    let unit = record
        .unit
        .as_deref()
        .map(|unit| format!(" {unit}"))
        .unwrap_or_default();
    let container = if record.container == Some(true) {
        " in a container"
    } else {
        ""
    };
    let resource = record.resource.as_deref().unwrap_or("-");
    let identity = match record.identity.as_deref() {
        None | Some("system") => String::new(),
        Some(other) => format!(" as {other}"),
    };
    let rule = record
        .rule
        .as_deref()
        .map(|rule| format!(" rule \"{rule}\""))
        .unwrap_or_default();
    let cache = record
        .cache
        .as_deref()
        .map(|cache| format!(" {cache}"))
        .unwrap_or_default();
    format!(
        "{} {:<11} {user}{unit}{container} {resource}{identity}{rule}{cache} {} ms",
        record.time, record.outcome, record.ms
    )
}

/// The end of a file that grows, is rotated by a rename or cut off by a copy.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    file: File,
    position: u64,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Tail {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self {
            path,
            file,
            position: 0,
            begun: Vec::new(),
        })
    }

    /// To the beginning of the last lines.
    fn back_to(&mut self, lines: usize) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if lines == 0 {
            self.position = length;
            return Ok(());
        }
        let mut start = length;
        let mut newlines = 0;
        self.position = 0;
        while start > 0 {
            let from = start.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(start - from).unwrap_or_default()];
            self.file.seek(SeekFrom::Start(from))?;
            self.file.read_exact(&mut block)?;
            for (place, byte) in block.iter().enumerate().rev() {
                let after = from + place as u64 + 1;
                // The newline at the very end belongs to the last line.
                if *byte == b'\n' && after < length {
                    newlines += 1;
                    if newlines == lines {
                        self.position = after;
                        return Ok(());
                    }
                }
            }
            start = from;
        }
        Ok(())
    }

    /// The lines that are there by now, a block at a time; none where there is nothing new.
    fn read(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.is_empty() {
            self.file.seek(SeekFrom::Start(self.position))?;
            let read = Read::by_ref(&mut self.file)
                .take(BLOCK)
                .read_to_end(&mut self.begun)?;
            if read == 0 {
                break;
            }
            self.position += read as u64;
            let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
                if self.begun.len() > LONGEST {
                    self.begun.clear();
                }
                continue;
            };
            let rest = self.begun.split_off(end + 1);
            let text = String::from_utf8_lossy(&self.begun).into_owned();
            lines.extend(text.lines().map(str::to_owned));
            self.begun = rest;
        }
        Ok(lines)
    }

    /// To the new file where the path leads to another by now, and to the beginning of one that was
    /// cut off. Called when all of the old one is read.
    fn follow(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        if ours.len() < self.position {
            self.position = 0;
            self.begun.clear();
        }
        let there = match fs::metadata(&self.path) {
            Ok(there) => there,
            // Between the rename and the new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_same = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        // What was written to the old file after the last look comes first.
        if is_same || ours.len() > self.position {
            return Ok(());
        }
        match Self::open(self.path.clone()) {
            Ok(new) => *self = new,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn all(tail: &mut Tail) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let lines = tail.read().unwrap();
            if lines.is_empty() {
                return all;
            }
            all.extend(lines);
        }
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let numbers: Vec<_> = (0..20_000).map(|number| number.to_string()).collect();
        let text = numbers.join("\n") + "\n";
        append(&path, &text);
        for lines in [0, 1, 3, 15_000, 20_000, 30_000] {
            let mut tail = Tail::open(path.clone()).unwrap();
            tail.back_to(lines).unwrap();
            let expected: Vec<_> = (20_000 - lines.min(20_000)..20_000)
                .map(|n| n.to_string())
                .collect();
            assert_eq!(all(&mut tail), expected);
        }
    }

    #[test]
    fn a_follower_misses_nothing_when_the_file_is_rotated_or_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        append(&path, "1\n2\n");
        let mut tail = Tail::open(path.clone()).unwrap();
        assert_eq!(all(&mut tail), ["1", "2"]);
        append(&path, "3");
        tail.follow().unwrap();
        assert_eq!(all(&mut tail), [""; 0]);
        append(&path, "3\n");
        fs::rename(&path, dir.path().join("a.1")).unwrap();
        tail.follow().unwrap();
        assert_eq!(all(&mut tail), ["33"]);
        tail.follow().unwrap();
        append(&path, "4\n");
        tail.follow().unwrap();
        assert_eq!(all(&mut tail), ["4"]);
        // As copytruncate does.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        tail.follow().unwrap();
        append(&path, "5\n");
        tail.follow().unwrap();
        assert_eq!(all(&mut tail), ["5"]);
    }

    #[test]
    fn a_record_is_a_line_that_is_read_at_a_glance() {
        let record = r#"{"schema":1,"time":"2026-11-24T18:06:10.123Z","seq":1,"prev":"","id":"a-1","outcome":"issued","uid":34,"gid":34,"user":"backup","pid":7,"unit":"backup.service","invocation":null,"container":false,"identity":"system","resource":"https://vault.azure.net","rule":"nightly","policy":"305adb5b50c5","cache":"cache","ms":0,"expires_on":1,"uti":null,"token_sha256":"74787541180e"}"#;
        assert_eq!(
            readable(record),
            "2026-11-24T18:06:10.123Z issued      backup(34) backup.service https://vault.azure.net rule \"nightly\" cache 0 ms"
        );
        assert_eq!(readable("noise"), "noise");
    }
}
