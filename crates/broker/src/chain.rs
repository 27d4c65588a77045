//! The chain of audit lines: each has the next number and the digest of the line before, so that a
//! line that was changed, removed or moved shows.

use std::io::Write as _;

use arcbroker_client::chain::digest;

use crate::record::Drafts;

/// The end of the chain so far: its number, and the digest that the next line will carry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    prev: String,
}

impl Link {
    /// The end of a chain whose last line this is.
    pub(crate) fn after(line: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Numbered {
            seq: u64,
        }
        let seq = serde_json::from_slice::<Numbered>(line).map_or(0, |line| line.seq);
        Self {
            seq,
            prev: digest(line),
        }
    }

    /// The end after the last of these lines, or where it is if there are none.
    pub(crate) fn after_last(&self, lines: &[u8]) -> Self {
        let whole = lines.strip_suffix(b"\n").unwrap_or(lines);
        match whole.rsplit(|&byte| byte == b'\n').next() {
            Some(line) if !line.is_empty() => Self::after(line),
            _ => self.clone(),
        }
    }

    /// Gives drafts their places: their lines, each with a newline.
    pub(crate) fn extend(&mut self, drafts: &Drafts) -> Vec<u8> {
        // `,"seq":N,"prev":"…"` and the newline.
        let places = drafts.count() * (20 + 32 + 20);
        let mut lines = Vec::with_capacity(drafts.bytes() + places);
        for (head, body) in drafts.halves() {
            let start = lines.len();
            self.seq += 1;
            lines.extend_from_slice(head);
            // A Vec takes all that is written to it.
            write!(lines, ",\"seq\":{},\"prev\":\"{}\"", self.seq, self.prev).unwrap_or_default();
            lines.extend_from_slice(body);
            self.prev = digest(lines.get(start..).unwrap_or_default());
            lines.push(b'\n');
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_that_of_the_last_line() {
        let start = Link::after(br#"{"seq":7}"#);
        assert_eq!((start.seq, start.prev.len()), (7, 32));
        assert_eq!(start.after_last(b""), start);
        let lines = b"{\"seq\":8}\n{\"seq\":9}\n";
        assert_eq!(start.after_last(lines), Link::after(br#"{"seq":9}"#));
    }

    #[test]
    fn a_line_without_a_number_begins_again_and_still_counts_for_the_digest() {
        let link = Link::after(b"no record");
        assert_eq!(link.seq, 0);
        assert_eq!(link.prev, digest(b"no record"));
    }
}
