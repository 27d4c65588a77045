//! Where in a file something is written.

use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc};

use crate::escape::visible_line;

/// Columns of the longest line that is quoted whole.
const WIDEST: usize = 160;
/// Columns kept to the left of the carets where a line is cut.
const LEAD: usize = 40;
const CUT: &str = "...";

/// A file that was read, as text.
#[derive(Debug)]
pub(crate) struct Source {
    name: Arc<str>,
    text: String,
    /// The byte after each newline, so that a file full of mistakes is not searched for each.
    line_starts: Vec<usize>,
    broken_lines: BTreeSet<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: String) -> Self {
        let line_starts = text
            .match_indices('\n')
            .map(|(newline, _)| newline + 1)
            .collect();
        Self {
            name: name.into(),
            text,
            line_starts,
            broken_lines: BTreeSet::new(),
        }
    }

    /// The same, knowing at which bytes the syntax is broken.
    pub(crate) fn with_broken(mut self, bytes: &[usize]) -> Self {
        self.broken_lines = bytes.iter().map(|byte| self.line(*byte)).collect();
        self
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether some of the text could not be read, so that what seems to be missing may be there.
    pub(crate) fn is_broken(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// The line that holds this byte, counted from 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte) + 1
    }

    /// All text before this byte.
    pub(crate) fn before(&self, byte: usize) -> &str {
        self.text.get(..byte).unwrap_or(&self.text)
    }

    /// What stands before this byte in its line.
    pub(crate) fn line_before(&self, byte: usize) -> &str {
        self.before(byte).rsplit('\n').next().unwrap_or_default()
    }
}

/// A range of characters in a file that was read.
#[derive(Clone)]
pub struct Location {
    source: Arc<Source>,
    range: Range<usize>,
}

impl Location {
    pub(crate) fn new(source: &Arc<Source>, range: Range<usize>) -> Self {
        Self {
            source: Arc::clone(source),
            range,
        }
    }

    /// The name of the file, as the reader was given it.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.source.line(self.range.start)
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.source.line_before(self.range.start).chars().count() + 1
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn is_in_a_broken_line(&self) -> bool {
        self.source.broken_lines.contains(&self.line())
    }

    pub(crate) fn quote(&self) -> Quote {
        let head = self.source.line_before(self.range.start);
        let rest = self.source.text.get(self.range.start..).unwrap_or_default();
        let tail = rest.split('\n').next().unwrap_or_default();
        let tail = tail.strip_suffix('\r').unwrap_or(tail);
        let marked = tail.get(..self.range.len()).unwrap_or(tail);
        let from = visible_line(head).len();
        let width = visible_line(marked).len();
        Quote {
            line: visible_line(&format!("{head}{tail}")),
            from,
            width: width.max(1),
        }
        .clipped()
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file(), self.line(), self.column())
    }
}

impl AsRef<Location> for Location {
    fn as_ref(&self) -> &Location {
        self
    }
}

/// A value, and where it is written.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub location: Location,
}

impl<T> Spanned<T> {
    /// Another value that is written at the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned {
            value: change(self.value),
            location: self.location,
        }
    }
}

impl<T> AsRef<Location> for Spanned<T> {
    fn as_ref(&self) -> &Location {
        &self.location
    }
}

/// One line for the reader to look at, in visible ASCII, and the columns to mark in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Quote {
    pub(crate) line: String,
    pub(crate) from: usize,
    pub(crate) width: usize,
}

impl Quote {
    fn clipped(self) -> Self {
        if self.line.len() <= WIDEST {
            return self;
        }
        let cut_left = self.from + self.width + CUT.len() > WIDEST && self.from > LEAD;
        let (skipped, opening) = if cut_left {
            (self.from - LEAD, CUT)
        } else {
            (0, "")
        };
        let rest = self.line.get(skipped..).unwrap_or_default();
        let room = WIDEST - opening.len();
        let (kept, closing) = match rest.get(..room - CUT.len()) {
            Some(kept) if rest.len() > room => (kept, CUT),
            _ => (rest, ""),
        };
        let from = self.from - skipped + opening.len();
        let width = self
            .width
            .min((opening.len() + kept.len()).saturating_sub(from))
            .max(1);
        Self {
            line: format!("{opening}{kept}{closing}"),
            from,
            width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(text: &str, range: Range<usize>) -> Quote {
        Location::new(&Arc::new(Source::new("f", text.to_owned())), range).quote()
    }

    fn marked(quote: &Quote) -> &str {
        &quote.line[quote.from..quote.from + quote.width]
    }

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = "a\n\u{4e16}\u{754c} = 1\n";
        let source = Arc::new(Source::new("f", text.to_owned()));
        let at = Location::new(
            &source,
            text.find('=').unwrap()..text.find('=').unwrap() + 1,
        );
        assert_eq!((at.line(), at.column()), (2, 4));
        assert_eq!(marked(&at.quote()), "=");
    }

    #[test]
    fn a_mark_stays_within_its_line() {
        let many_lines = quote("x = [1,\n2]\n", 4..10);
        assert_eq!(
            (many_lines.line.as_str(), marked(&many_lines)),
            ("x = [1,", "[1,")
        );
        let tabs = quote("\t\tkey\t= 1\r\n", 2..5);
        assert_eq!(marked(&tabs), "key");
        let end = quote("key =\n", 5..5);
        assert_eq!((end.from, end.width), (5, 1));
        let beyond = quote("", 7..9);
        assert_eq!((beyond.from, beyond.width), (0, 1));
    }

    #[test]
    fn a_long_line_is_cut_around_its_mark() {
        let text = format!("{}KEY{}", "a".repeat(500), "b".repeat(500));
        let middle = quote(&text, 500..503);
        assert_eq!((middle.line.len(), marked(&middle)), (WIDEST, "KEY"));
        assert!(middle.line.starts_with("...a") && middle.line.ends_with("b..."));
        let left = quote(&text, 0..3);
        assert!(left.line.starts_with("aaa") && left.line.len() == WIDEST);
        let all = quote(&text, 0..text.len());
        assert_eq!((all.from, all.width), (0, WIDEST - CUT.len()));
    }
}
