//! What is wrong with a file, said so that its author can mend it in one go.
//!
//! Everything that is printed is visible ASCII and newlines, whatever the file contains.

use std::{fmt, sync::Arc};

use crate::{
    escape::visible,
    source::{Location, Quote},
};

/// How many errors, and how many warnings, are kept; the rest is only counted.
const KEPT: usize = 100;

/// Whether the file can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One mistake.
///
/// Printed as
///
/// ```text
/// /etc/arcbroker/policy.d/web.toml:4:1: unknown key `usr`
///   |
/// 4 | usr = "www-data"
///   | ^^^ allowed here: name, user, group, unit, container, resources, identity, bypass-cache; did you mean `user`?
/// ```
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// The name of the file.
    pub file: Arc<str>,
    /// Line and column, both counted from 1; none where the whole file is meant.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What to write or do instead.
    pub help: Option<String>,
    quote: Option<Quote>,
}

/// A place in a file; columns are characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

impl Diagnostic {
    fn at(severity: Severity, location: &Location, message: String, help: Option<String>) -> Self {
        Self {
            severity,
            file: Arc::clone(location.source().name()),
            position: Some(Position {
                line: location.line(),
                column: location.column(),
            }),
            message,
            help,
            quote: Some(location.quote()),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&self.file))?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        let kind = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(f, ": {kind}{}", visible(&self.message))?;
        let help = self.help.as_deref().map(visible).unwrap_or_default();
        match (&self.quote, self.position) {
            (Some(quote), Some(position)) => write_quote(f, quote, position.line, &help),
            _ if help.is_empty() => Ok(()),
            _ => write!(f, "\n  = {help}"),
        }
    }
}

fn write_quote(f: &mut fmt::Formatter<'_>, quote: &Quote, line: usize, help: &str) -> fmt::Result {
    let number = line.to_string();
    let margin = number.len();
    let carets = "^".repeat(quote.width);
    write!(
        f,
        "\n{:margin$} |\n{number} | {}\n{:margin$} | ",
        "", quote.line, ""
    )?;
    write!(f, "{:from$}{carets}", "", from = quote.from)?;
    if help.is_empty() {
        Ok(())
    } else {
        write!(f, " {help}")
    }
}

/// All mistakes that were found, by file in the order of reading and by position within a file.
///
/// Printed as its members, one after the other, and a last line that counts them.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An error at a value, with what to write instead.
    pub fn error_at(
        &mut self,
        at: &impl AsRef<Location>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.at(Severity::Error, at.as_ref(), message.into(), help.into());
    }

    /// A warning at a value, with what to write instead.
    pub fn warning_at(
        &mut self,
        at: &impl AsRef<Location>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.at(Severity::Warning, at.as_ref(), message.into(), help.into());
    }

    /// An error about a whole file or directory, with what to do.
    pub fn error_in(&mut self, file: &str, message: impl Into<String>, help: impl Into<String>) {
        self.whole(Severity::Error, file, message.into(), help.into());
    }

    /// A warning about a whole file or directory, with what to do.
    pub fn warning_in(&mut self, file: &str, message: impl Into<String>, help: impl Into<String>) {
        self.whole(Severity::Warning, file, message.into(), help.into());
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    /// The first hundred errors and the first hundred warnings.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// An error in the grammar of the file: unlike the others it may be in a line that is broken.
    pub(crate) fn syntax_error(
        &mut self,
        location: &Location,
        message: String,
        help: Option<String>,
    ) {
        if self.count(Severity::Error) {
            self.insert(Diagnostic::at(Severity::Error, location, message, help));
        }
    }

    fn at(&mut self, severity: Severity, location: &Location, message: String, help: String) {
        // What is left of a broken line looks wrong in ways that its author did not write.
        if !location.is_in_a_broken_line() && self.count(severity) {
            self.insert(Diagnostic::at(severity, location, message, some(help)));
        }
    }

    fn whole(&mut self, severity: Severity, file: &str, message: String, help: String) {
        if self.count(severity) {
            let (file, help) = (file.into(), some(help));
            self.insert(Diagnostic {
                severity,
                file,
                position: None,
                message,
                help,
                quote: None,
            });
        }
    }

    /// Counts one more and says whether it is to be kept.
    fn count(&mut self, severity: Severity) -> bool {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        *count <= KEPT
    }

    fn insert(&mut self, new: Diagnostic) {
        let first = self
            .list
            .iter()
            .position(|old| old.file == new.file)
            .unwrap_or(self.list.len());
        let before = |old: &&Diagnostic| old.file == new.file && old.position <= new.position;
        let place = first + self.list.iter().skip(first).take_while(before).count();
        self.list.insert(place, new);
    }
}

fn some(help: String) -> Option<String> {
    Some(help).filter(|help| !help.is_empty())
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}")?;
        }
        let parts = [
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))?;
        if self.errors.max(self.warnings) > KEPT {
            write!(f, " (the first {KEPT} are shown)")
        } else {
            Ok(())
        }
    }
}

fn counted(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn location(text: &str, part: &str) -> Location {
        let start = text.find(part).unwrap();
        Location::new(
            &Arc::new(Source::new(
                "/etc/arcbroker/policy.d/web.toml",
                text.to_owned(),
            )),
            start..start + part.len(),
        )
    }

    #[test]
    fn a_diagnostic_quotes_the_line_and_marks_the_place() {
        let mut found = Diagnostics::new();
        found.error_at(
            &location("\n\n\nusr = \"www-data\"\n", "usr"),
            "unknown key `usr`",
            "allowed here: name, user",
        );
        let expected = "\
/etc/arcbroker/policy.d/web.toml:4:1: unknown key `usr`
  |
4 | usr = \"www-data\"
  | ^^^ allowed here: name, user
1 error";
        assert_eq!(found.to_string(), expected);
    }

    #[test]
    fn the_margin_is_as_wide_as_the_number() {
        let text = format!("{}\tkey = 1", "\n".repeat(99));
        let mut found = Diagnostics::new();
        found.warning_at(&location(&text, "key"), "odd", "");
        let expected = "\
/etc/arcbroker/policy.d/web.toml:100:2: warning: odd
    |
100 |     key = 1
    |     ^^^
1 warning";
        assert_eq!(found.to_string(), expected);
    }

    #[test]
    fn they_are_sorted_within_a_file_and_counted() {
        let text = "a\nb\nc\n";
        let mut found = Diagnostics::new();
        found.error_at(&location(text, "c"), "third", "");
        found.warning_in("/etc/other", "a directory", "create it");
        found.error_at(&location(text, "a"), "first", "");
        found.warning_at(&location(text, "b"), "second", "");
        let messages: Vec<&str> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages, ["first", "second", "third", "a directory"]);
        assert!(
            found
                .to_string()
                .ends_with("/etc/other: warning: a directory\n  = create it\n2 errors, 2 warnings")
        );
    }

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let mut found = Diagnostics::new();
        (0..1000).for_each(|number| found.warning_in("f", format!("{number}"), ""));
        found.error_in("f", "the one that matters", "");
        assert_eq!(
            (found.iter().count(), found.errors(), found.warnings()),
            (KEPT + 1, 1, 1000)
        );
        assert!(
            found
                .to_string()
                .ends_with("\n1 error, 1000 warnings (the first 100 are shown)")
        );
    }

    #[test]
    fn nothing_wrong_prints_nothing() {
        assert_eq!(Diagnostics::new().to_string(), "");
    }
}
