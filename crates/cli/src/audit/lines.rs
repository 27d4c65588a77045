//! Lines of a file, one after the other, in memory that does not grow with the file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use super::Error;

/// Bytes of the longest line that is looked at; the daemon's are a tenth of it.
const LONGEST: usize = 64 * 1024;

/// A file that is read line by line.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    /// Counted from 1.
    pub(crate) number: u64,
}

/// What comes next in a file.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Next<'l> {
    /// A line, without its newline.
    Line(&'l [u8]),
    /// One that is longer than any record.
    TooLong,
    /// One that does not end: it is being written, or its end was lost.
    Torn,
}

impl Lines<BufReader<File>> {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::read(path, error))?;
        Ok(Lines::new(BufReader::with_capacity(256 * 1024, file)))
    }
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            line: Vec::new(),
            number: 0,
        }
    }

    /// None at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Next<'_>>> {
        self.line.clear();
        let mut is_long = false;
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            let content = buffer.get(..end.unwrap_or(taken)).unwrap_or_default();
            let is_over = buffer.is_empty();
            is_long |= self.line.len() + content.len() > LONGEST;
            if !is_long {
                self.line.extend_from_slice(content);
            }
            self.reader.consume(taken);
            if end.is_some() || is_over {
                let is_nothing = is_over && self.line.is_empty() && !is_long;
                self.number += u64::from(!is_nothing);
                return Ok(match () {
                    () if is_nothing => None,
                    () if is_long => Some(Next::TooLong),
                    () if is_over => Some(Next::Torn),
                    () => Some(Next::Line(&self.line)),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(BufReader::with_capacity(7, text));
        let mut all = Vec::new();
        while let Some(next) = lines.next().unwrap() {
            all.push(match next {
                Next::Line(line) => String::from_utf8(line.to_vec()).unwrap(),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(lines.number, all.len() as u64);
        all
    }

    #[test]
    fn every_line_comes_whole_and_what_is_none_is_told_apart() {
        assert_eq!(all(b""), [""; 0]);
        assert_eq!(
            all(b"a\nlonger than the buffer\n\nc\n"),
            ["a", "longer than the buffer", "", "c"]
        );
        assert_eq!(all(b"a\nb"), ["a", "Torn"]);
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(
            all(format!("a\n{long}\nb\n").as_bytes()),
            ["a", "TooLong", "b"]
        );
    }
}
