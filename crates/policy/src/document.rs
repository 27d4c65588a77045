//! A TOML file, read so that every value knows where it is written.
//!
//! What is not plain text is refused before it is parsed: a mark of byte order, NUL, or anything
//! that is not UTF-8 could be read differently by another program.

use std::{ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue};

use crate::{
    Diagnostics,
    source::{Location, Source},
    syntax::{self, SyntaxError},
    table::Table,
};

/// Bytes of the longest file that is read.
pub const MAX_FILE: usize = 256 * 1024;

const BOM: char = '\u{feff}';

/// A parsed file.
#[derive(Debug)]
pub struct Document {
    source: Arc<Source>,
    root: Vec<Entry>,
}

impl Document {
    /// Reads `bytes`, the contents of the file that messages call `name`.
    ///
    /// Returns none where there is nothing to look into. A document with errors in its grammar is
    /// returned as far as it could be read, so that its other mistakes are reported in the same
    /// run: whether the file may be used is what [`Diagnostics::has_errors`] says.
    pub fn parse(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Self> {
        let text = text(name, bytes, diagnostics)?;
        let source = Source::new(name, text);
        let (root, errors) = DeTable::parse_recoverable(source.text());
        let root = entries(root.get_ref());
        let broken: Vec<usize> = errors
            .iter()
            .map(|error| error.span().unwrap_or_default().start)
            .collect();
        let errors = syntax::reworded(&source, &errors);
        let source = Arc::new(source.with_broken(&broken));
        for SyntaxError {
            range,
            message,
            help,
        } in errors
        {
            diagnostics.syntax_error(&Location::new(&source, range), message, help);
        }
        Some(Self { source, root })
    }

    /// The table of the keys that stand before the first header, and of all top-level tables.
    pub fn table(&self) -> Table<'_> {
        Table::new(&self.source, &self.root, 0..0)
    }
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_range: Range<usize>,
    pub(crate) node: Node,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) range: Range<usize>,
}

#[derive(Debug)]
pub(crate) enum Value {
    String(String),
    /// None where it does not fit into 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    Float,
    Date,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

fn text(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<String> {
    if bytes.len() > MAX_FILE {
        let message = format!("the file has {} bytes, more than {MAX_FILE}", bytes.len());
        diagnostics.error_in(
            name,
            message,
            "split it into several files, or check that it is the right one",
        );
        return None;
    }
    let (text, bad) = match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), forbidden(text)),
        Err(error) => {
            let at = error.valid_up_to();
            (
                String::from_utf8_lossy(bytes).into_owned(),
                Some((at, "is not UTF-8", "save the file as UTF-8")),
            )
        }
    };
    let Some((at, what, help)) = bad else {
        return Some(text);
    };
    let source = Arc::new(Source::new(name, text));
    diagnostics.syntax_error(
        &Location::new(&source, at..at),
        format!("the file {what}"),
        Some(help.to_owned()),
    );
    None
}

fn forbidden(text: &str) -> Option<(usize, &'static str, &'static str)> {
    if text.starts_with(BOM) {
        return Some((
            0,
            "begins with a byte order mark",
            "save the file as UTF-8 without a byte order mark",
        ));
    }
    text.find('\0').map(|at| {
        (
            at,
            "contains a NUL byte",
            "save the file as plain UTF-8 text",
        )
    })
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let entry = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, _)| Entry {
        key: key.get_ref().to_string(),
        key_range: key.span(),
        node: node(value),
    };
    table.iter().map(entry).collect()
}

fn node(spanned: &toml::Spanned<DeValue<'_>>) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Float(_) => Value::Float,
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(list) => Value::List(list.iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(entries(table)),
    };
    Node {
        value,
        range: spanned.span(),
    }
}
