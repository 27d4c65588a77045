//! Typed reading of a table: every wrong type and every unknown key is reported where it stands.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use crate::{
    Diagnostics,
    document::{Entry, Node, Value},
    source::{Location, Source, Spanned},
    spelling::closest,
};

/// The longest list: it bounds what one rule may cost.
const MAX_LIST: usize = 256;

/// A table of a [`Document`](crate::Document), from which keys are read one after the other.
///
/// Each method that reads a key also declares it as allowed; [`Table::finish`] then reports all
/// others. A method returns none where the key is absent, and where it has the wrong type, which
/// it has reported by then.
#[derive(Debug)]
pub struct Table<'d> {
    source: &'d Arc<Source>,
    entries: &'d [Entry],
    location: Location,
    allowed: Vec<&'static str>,
}

/// A value that may be a name or a number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scalar {
    /// Written in quotes.
    String(String),
    /// Written as digits.
    Integer(i64),
}

impl<'d> Table<'d> {
    pub(crate) fn new(source: &'d Arc<Source>, entries: &'d [Entry], range: Range<usize>) -> Self {
        Self {
            source,
            entries,
            location: Location::new(source, range),
            allowed: Vec::new(),
        }
    }

    /// Whether the key is there, with whatever type.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Reports that the key is missing, if it is, and says what to write.
    pub fn require(&self, key: &str, help: &str, diagnostics: &mut Diagnostics) {
        if !self.contains(key) {
            self.missing(format!("`{key}` is missing"), help, diagnostics);
        }
    }

    /// Reports at the table's header that something is missing in it.
    ///
    /// Silent where a part of the file could not be read: what is missing may be in there.
    pub fn missing(
        &self,
        message: impl Into<String>,
        help: impl Into<String>,
        diagnostics: &mut Diagnostics,
    ) {
        if !self.source.is_broken() {
            diagnostics.error_at(self, message, help);
        }
    }

    /// A string.
    pub fn string(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Spanned<String>> {
        let node = self.take(key)?;
        match &node.value {
            Value::String(text) => Some(self.spanned(node, text.clone())),
            _ => self.wrong(
                key,
                node,
                "a string",
                &format!("write {key} = \"...\""),
                diagnostics,
            ),
        }
    }

    /// `true` or `false`.
    pub fn boolean(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Spanned<bool>> {
        let node = self.take(key)?;
        match &node.value {
            Value::Boolean(boolean) => Some(self.spanned(node, *boolean)),
            _ => self.wrong(
                key,
                node,
                "true or false",
                "write it without quotes",
                diagnostics,
            ),
        }
    }

    /// A whole number within `allowed`.
    pub fn integer(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<i64>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Spanned<i64>> {
        let node = self.take(key)?;
        match &node.value {
            Value::Integer(Some(number)) if allowed.contains(number) => {
                Some(self.spanned(node, *number))
            }
            Value::Integer(_) => {
                let message = format!("`{key}` is out of range");
                let help = format!(
                    "write a number from {} to {}",
                    allowed.start(),
                    allowed.end()
                );
                diagnostics.error_at(&self.at(node), message, help);
                None
            }
            _ => self.wrong(
                key,
                node,
                "a whole number",
                "write it without quotes",
                diagnostics,
            ),
        }
    }

    /// A string, or a list of 1 to 256 strings; those that are strings, where some are not.
    pub fn strings(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Vec<Spanned<String>>> {
        let node = self.take(key)?;
        self.string_list(key, node, diagnostics)
    }

    /// The same, or an empty list.
    pub fn strings_or_none(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Vec<Spanned<String>>> {
        let node = self.take(key)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            return Some(Vec::new());
        }
        self.string_list(key, node, diagnostics)
    }

    fn string_list(
        &self,
        key: &'static str,
        node: &Node,
        diagnostics: &mut Diagnostics,
    ) -> Option<Vec<Spanned<String>>> {
        let example = format!("write {key} = \"...\" or {key} = [\"...\", \"...\"]");
        let string = |item: &Node| match &item.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        self.list(
            key,
            node,
            ("a string or a list of strings", &example),
            string,
            diagnostics,
        )
    }

    /// A string or a whole number, or a list of 1 to 256 such; those that are, where some are not.
    pub fn scalars(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Vec<Spanned<Scalar>>> {
        let node = self.take(key)?;
        let example = format!("write {key} = \"name\", {key} = 1000 or {key} = [\"name\", 1000]");
        let scalar = |item: &Node| match &item.value {
            Value::String(text) => Some(Scalar::String(text.clone())),
            Value::Integer(number) => number.map(Scalar::Integer),
            _ => None,
        };
        self.list(
            key,
            node,
            ("a name, a number or a list of these", &example),
            scalar,
            diagnostics,
        )
    }

    /// A table: `[key]`.
    pub fn table(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Table<'d>> {
        let node = self.take(key)?;
        match &node.value {
            Value::Table(entries) => Some(Table::new(self.source, entries, node.range.clone())),
            _ => self.wrong(
                key,
                node,
                "a table",
                &format!("write [{key}], and its keys below"),
                diagnostics,
            ),
        }
    }

    /// All tables `[[key]]`, in the order of the file.
    pub fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Table<'d>> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let example = format!("write [[{key}]], and its keys below");
        let expected = ("a list of tables", example.as_str());
        let Value::List(items) = &node.value else {
            self.wrong::<()>(key, node, expected.0, expected.1, diagnostics);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            if let Value::Table(entries) = &item.value {
                tables.push(Table::new(self.source, entries, item.range.clone()));
            } else {
                self.wrong::<()>(key, item, expected.0, expected.1, diagnostics);
            }
        }
        tables
    }

    /// All keys of this table with their values, which are whole numbers from 0 to `most`.
    pub fn numbers(self, most: u32, diagnostics: &mut Diagnostics) -> Vec<(String, u32)> {
        let mut numbers = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let number = match &entry.node.value {
                Value::Integer(Some(number)) => u32::try_from(*number).ok(),
                _ => None,
            };
            if let Some(number) = number.filter(|number| *number <= most) {
                numbers.push((entry.key.clone(), number));
            } else {
                let message = format!("`{}` is no number from 0 to {most}", entry.key);
                diagnostics.error_at(&self.at(&entry.node), message, "write it without quotes");
            }
        }
        numbers
    }

    /// Reports every key that was not read.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for entry in self
            .entries
            .iter()
            .filter(|entry| !self.allowed.contains(&entry.key.as_str()))
        {
            let location = Location::new(self.source, entry.key_range.clone());
            let mut help = format!("allowed here: {}", self.allowed.join(", "));
            if let Some(close) = closest(&entry.key, &self.allowed) {
                help = format!("{help}; did you mean `{close}`?");
            }
            diagnostics.error_at(&location, format!("unknown key `{}`", entry.key), help);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'d Node> {
        self.allowed.push(key);
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    /// The value itself, or the items where it is a list. An empty list is refused, because some
    /// would read it as "nobody" and some as "no condition".
    fn list<T>(
        &self,
        key: &str,
        node: &Node,
        (expected, example): (&str, &str),
        read: impl Fn(&Node) -> Option<T>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Vec<Spanned<T>>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() || items.len() > MAX_LIST {
            let message = format!("`{key}` has {} entries", items.len());
            diagnostics.error_at(
                &self.at(node),
                message,
                format!("write 1 to {MAX_LIST} entries, or remove the key"),
            );
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match read(item) {
                Some(value) => values.push(self.spanned(item, value)),
                None => _ = self.wrong::<T>(key, item, expected, example, diagnostics),
            }
        }
        Some(values).filter(|values| !values.is_empty())
    }

    fn wrong<T>(
        &self,
        key: &str,
        node: &Node,
        expected: &str,
        example: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<T> {
        let message = format!("`{key}` must be {expected}, not {}", found(&node.value));
        diagnostics.error_at(&self.at(node), message, example);
        None
    }

    fn spanned<T>(&self, node: &Node, value: T) -> Spanned<T> {
        Spanned {
            value,
            location: self.at(node),
        }
    }

    fn at(&self, node: &Node) -> Location {
        Location::new(self.source, node.range.clone())
    }
}

impl AsRef<Location> for Table<'_> {
    fn as_ref(&self) -> &Location {
        &self.location
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(Some(_)) => "a number",
        Value::Integer(None) => "a number with more than 64 bits",
        Value::Boolean(_) => "a boolean",
        Value::Float => "a number with a fraction",
        Value::Date => "a date",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}
