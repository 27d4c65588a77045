//! Whether the chain of records is whole: nothing altered, nothing missing, nothing moved.

use std::path::Path;

use arcbroker_client::chain::digest;
use serde::Deserialize;

use super::{
    Error,
    lines::{Lines, Next},
};

/// What was found in all files together.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) records: u64,
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    /// Where the chain begins, if not at its very first record.
    pub(crate) begins_at: Option<u64>,
    /// How many there are; those beyond [`MOST`] are only counted.
    pub(crate) faults: u64,
    pub(crate) shown: Vec<Fault>,
}

/// Faults that are kept to be shown.
const MOST: usize = 100;

/// A place where the chain is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    /// File and line.
    pub(crate) place: String,
    pub(crate) what: String,
}

/// The end of the chain so far.
#[derive(Debug)]
struct End {
    seq: u64,
    digest: String,
    /// Whether that line is the last of another file.
    is_elsewhere: bool,
    /// Whether that line is no record.
    is_broken: bool,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
    prev: String,
    time: String,
}

/// Goes through files one after the other.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    report: Report,
    end: Option<End>,
}

impl Verifier {
    pub(crate) fn file(&mut self, path: &Path) -> Result<(), Error> {
        let mut lines = Lines::open(path)?;
        if let Some(end) = &mut self.end {
            end.is_elsewhere = true;
        }
        loop {
            let number = lines.number + 1;
            let next = lines.next().map_err(|error| Error::read(path, error))?;
            let place = || format!("{}:{number}", path.display());
            match next {
                None => return Ok(()),
                Some(Next::Line(line)) => self.line(line, place),
                Some(Next::TooLong) => self.broken(b"", place(), "is longer than any record"),
                Some(Next::Torn) => self.fault(
                    place(),
                    "has no end: it is being written, or its end was lost".to_owned(),
                ),
            }
        }
    }

    pub(crate) fn finish(self) -> Report {
        self.report
    }

    fn line(&mut self, line: &[u8], place: impl Fn() -> String) {
        let Ok(record) = serde_json::from_slice::<Numbered>(line) else {
            return self.broken(line, place(), "is no record");
        };
        let what = match &self.end {
            None => {
                if record.seq != 1 || !record.prev.is_empty() {
                    self.report.begins_at = Some(record.seq);
                }
                None
            }
            Some(end) => wrong(end, &record),
        };
        if let Some(what) = what {
            self.fault(place(), what);
        }
        self.report.records += 1;
        self.report.first.get_or_insert_with(|| record.time.clone());
        self.report.last = Some(record.time);
        self.end = Some(End {
            seq: record.seq,
            digest: digest(line),
            is_elsewhere: false,
            is_broken: false,
        });
    }

    /// The daemon that finds such a line at the end of its file begins again behind it.
    fn broken(&mut self, line: &[u8], place: String, what: &str) {
        self.fault(place, what.to_owned());
        let seq = self.end.as_ref().map_or(0, |end| end.seq + 1);
        self.end = Some(End {
            seq,
            digest: digest(line),
            is_elsewhere: false,
            is_broken: true,
        });
    }

    fn fault(&mut self, place: String, what: String) {
        self.report.faults += 1;
        if self.report.shown.len() < MOST {
            self.report.shown.push(Fault { place, what });
        }
    }
}

/// What is wrong with a record after that end.
fn wrong(end: &End, record: &Numbered) -> Option<String> {
    let next = end.seq + 1;
    match record.seq {
        // Behind a line without a number the daemon counts from the beginning.
        seq if (seq == next || end.is_broken) && record.prev == end.digest => None,
        seq if seq == next => Some(format!(
            "record {seq} does not belong to the line before it: that one was altered, or this one"
        )),
        seq if seq > next => {
            let missing = match seq - next {
                1 => format!("record {next} is missing"),
                _ => format!("records {next} to {} are missing", seq - 1),
            };
            let why = if end.is_elsewhere {
                " (a rotation with copytruncate loses what is written meanwhile)"
            } else {
                ""
            };
            Some(missing + why)
        }
        1 if record.prev.is_empty() => Some(format!(
            "the chain begins anew after record {}: the daemon did not find its file, or others are missing",
            end.seq
        )),
        seq => Some(format!(
            "record {seq} comes after record {}: it was moved or repeated",
            end.seq
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// Lines of a chain as the daemon makes them, from this number on.
    fn chain(records: u64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for seq in 1..=records {
            let prev = lines
                .last()
                .map_or_else(String::new, |line| digest(line.as_bytes()));
            lines.push(format!(
                "{{\"schema\":1,\"time\":\"2026-11-24T00:00:{seq:02}.000Z\",\"seq\":{seq},\"prev\":\"{prev}\",\"uid\":0}}"
            ));
        }
        lines
    }

    fn verify(files: &[&[String]]) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let mut verifier = Verifier::default();
        for (number, lines) in files.iter().enumerate() {
            let path: PathBuf = dir.path().join(number.to_string());
            let text: String = lines
                .iter()
                .flat_map(|line| [line.as_str(), "\n"])
                .collect();
            fs::write(&path, text).unwrap();
            verifier.file(&path).unwrap();
        }
        let mut report = verifier.finish();
        for fault in &mut report.shown {
            fault.place = fault.place.rsplit('/').next().unwrap().to_owned();
        }
        report
    }

    fn faults(files: &[&[String]]) -> Vec<String> {
        let report = verify(files);
        assert_eq!(report.faults, report.shown.len() as u64);
        let text = |fault: &Fault| format!("{} {}", fault.place, fault.what);
        report.shown.iter().map(text).collect()
    }

    #[test]
    fn a_whole_chain_over_files_is_whole() {
        let lines = chain(6);
        let report = verify(&[&lines[..2], &lines[2..2], &lines[2..]]);
        assert_eq!(
            (report.records, report.faults, report.begins_at),
            (6, 0, None)
        );
        assert_eq!(report.first.as_deref(), Some("2026-11-24T00:00:01.000Z"));
        assert_eq!(report.last.as_deref(), Some("2026-11-24T00:00:06.000Z"));
        assert_eq!(verify(&[&lines[3..]]).begins_at, Some(4));
    }

    #[test]
    fn what_was_altered_removed_moved_or_torn_shows_with_its_place() {
        let lines = chain(6);
        let mut altered = lines.clone();
        altered[2] = altered[2].replace("\"uid\":0", "\"uid\":1");
        assert_eq!(
            faults(&[&altered]),
            [
                "0:4 record 4 does not belong to the line before it: that one was altered, or this one"
            ]
        );
        let mut removed = lines.clone();
        removed.remove(2);
        assert_eq!(faults(&[&removed]), ["0:3 record 3 is missing"]);
        let gap = faults(&[&lines[..2], &lines[4..]]);
        assert_eq!(
            gap,
            [
                "1:1 records 3 to 4 are missing (a rotation with copytruncate loses what is written meanwhile)"
            ]
        );
        let mut moved = lines.clone();
        moved.swap(2, 3);
        assert_eq!(faults(&[&moved]).len(), 3);
        let anew = faults(&[&lines[..2], &chain(1)]);
        assert!(anew[0].contains("begins anew after record 2"), "{anew:?}");
        let noise = faults(&[&[lines[0].clone(), "noise".to_owned()], &lines[2..3]]);
        assert!(noise[0].starts_with("0:2 is no record"), "{noise:?}");
        let again = lines[0].replace(
            "\"prev\":\"\"",
            &format!("\"prev\":\"{}\"", digest(b"noise")),
        );
        assert_eq!(
            faults(&[&["noise".to_owned(), again]]),
            ["0:1 is no record"]
        );
    }

    #[test]
    fn a_file_that_is_all_wrong_is_counted_and_not_kept() {
        let lines = vec!["noise".to_owned(); 300];
        let report = verify(&[&lines]);
        assert_eq!(
            (report.faults, report.shown.len(), report.records),
            (300, MOST, 0)
        );
    }
}
