//! Reads the audit log back: each line is one object, numbers have no gap, and each names the
//! digest of the line before. I26.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::invariant::{Check, Invariant};

/// The end of the chain so far, and what was in it.
#[derive(Debug, Default)]
pub struct Chain {
    seq: u64,
    prev: String,
    /// Lines by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Lines of issued tokens by the `uti` of the token.
    pub issued: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    prev: String,
    #[serde(borrow)]
    outcome: &'a str,
    #[serde(borrow)]
    uti: Option<&'a str>,
    token_sha256: Option<&'a str>,
}

impl Chain {
    /// Takes up the lines of a file, which must go on where the last one ended.
    pub fn follow(&mut self, path: &Path) -> Check {
        let Ok(file) = fs::File::open(path) else {
            return Ok(());
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line.expect("a file that was just written can be read");
            self.add(&line)?;
        }
        Ok(())
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.seq
    }

    fn add(&mut self, text: &[u8]) -> Check {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let line: Line<'_> =
            serde_json::from_slice(text).map_err(|error| crate::invariant::Breach {
                invariant: Invariant::I26,
                what: format!("{error} in the record {}", shown()),
            })?;
        let follows = line.seq == self.seq + 1 && line.prev == self.prev;
        Invariant::I26.demand(follows, || {
            format!("{} does not follow {}", shown(), self.seq)
        })?;
        let is_issued = line.outcome == "issued";
        Invariant::I26.demand(is_issued == line.token_sha256.is_some(), || {
            format!("{} has no digest of its token", shown())
        })?;
        self.seq = line.seq;
        self.prev = Sha256::digest(text)
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        *self.outcomes.entry(line.outcome.to_owned()).or_default() += 1;
        if let Some(uti) = line.uti {
            *self.issued.entry(uti.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, prev: &str) -> String {
        format!(r#"{{"seq":{seq},"prev":"{prev}","outcome":"denied"}}"#)
    }

    #[test]
    fn i26_breaks_with_a_line_that_is_missing_changed_or_torn() {
        let first = line(1, "");
        let mut chain = Chain::default();
        chain.add(first.as_bytes()).unwrap();
        let second = line(2, &chain.prev);
        for wrong in [line(3, &chain.prev), line(2, "00"), second[..9].to_owned()] {
            assert!(chain.add(wrong.as_bytes()).is_err(), "{wrong}");
        }
        chain.add(second.as_bytes()).unwrap();
        assert_eq!((chain.count(), chain.outcomes["denied"]), (2, 2));
    }
}
