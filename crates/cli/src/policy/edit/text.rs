//! The texts of policy files, with rules and entries of lists cut out of them. All else that is written
//! there stays, byte for byte.

use std::{collections::BTreeMap, ops::Range};

use arcbroker_policy::{RuleView, SourceFile};
use toml_edit::{Array, ArrayOfTables, Document, Item, TableLike, Value};

use super::Error;

pub(super) struct Texts(BTreeMap<String, Document<String>>);

/// The rules of one file, as they are written.
enum Rules<'d> {
    /// `[[rule]]`
    Tables(&'d ArrayOfTables),
    /// `rule = [{ … }, { … }]`
    List(&'d Array),
}

impl Texts {
    pub(super) fn parse(files: &[SourceFile]) -> Result<Self, Error> {
        let parse = |file: &SourceFile| Ok((file.name.clone(), document(file)?));
        files.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The keys of a rule.
    pub(super) fn rule(&self, rule: RuleView<'_>) -> Result<&dyn TableLike, Error> {
        let (rules, place) = self.find(rule)?;
        rules.get(place).ok_or_else(|| form(rule))
    }

    /// Takes away a rule with the comments that are about it.
    pub(super) fn remove(&mut self, rule: RuleView<'_>) -> Result<(), Error> {
        let (rules, place) = self.find(rule)?;
        let document = self.document(rule)?;
        let cuts = match rules {
            Rules::List(list) => entry(document.raw(), list, place),
            Rules::Tables(tables) => {
                let end = |table: Option<&dyn TableLike>| end(document.raw(), table?);
                let before = match place.checked_sub(1) {
                    Some(before) => end(rules.get(before)),
                    None => end(Some(document.as_table())),
                };
                let header = tables.get(place).and_then(toml_edit::Table::span);
                let own = end(rules.get(place)).or(header.map(|header| header.end));
                before
                    .zip(own)
                    .map(|(before, own)| std::iter::once(before..own).collect())
            }
        };
        self.cut(rule, cuts)
    }

    /// Takes entries out of a list of a rule, with the comments that are about them.
    pub(super) fn shorten(
        &mut self,
        rule: RuleView<'_>,
        key: &str,
        entries: &[usize],
    ) -> Result<(), Error> {
        // From the last one on, so that those before keep their places.
        for place in entries.iter().rev() {
            let list = self.rule(rule)?.get(key).and_then(Item::as_array);
            let text = self.document(rule)?.raw();
            let cuts = list.and_then(|list| entry(text, list, *place));
            self.cut(rule, cuts)?;
        }
        Ok(())
    }

    /// The files that are not as they were; none for one without a rule left.
    pub(super) fn changed(self, files: &[SourceFile]) -> BTreeMap<String, Option<String>> {
        let before = |name: &String| files.iter().find(|file| file.name == *name);
        let is_as_before = |(name, document): &(String, Document<String>)| {
            before(name).is_some_and(|file| file.bytes == document.raw().as_bytes())
        };
        let texts = self.0.into_iter().filter(|text| !is_as_before(text));
        let left = texts.map(|(name, document)| {
            let has_rules = rules(&document).is_some_and(|rules| rules.get(0).is_some());
            let text = has_rules.then(|| document.raw().to_owned());
            (name, text)
        });
        left.collect()
    }

    fn document(&self, rule: RuleView<'_>) -> Result<&Document<String>, Error> {
        self.0.get(rule.file()).ok_or_else(|| form(rule))
    }

    fn find(&self, rule: RuleView<'_>) -> Result<(Rules<'_>, usize), Error> {
        let rules = rules(self.document(rule)?).ok_or_else(|| form(rule))?;
        let is_named = |table: &dyn TableLike| {
            table.get("name").and_then(Item::as_str) == Some(&**rule.name())
        };
        let mut tables = (0..).map_while(|place| rules.get(place));
        let place = tables.position(is_named).ok_or_else(|| form(rule))?;
        Ok((rules, place))
    }

    fn cut(&mut self, rule: RuleView<'_>, cuts: Option<Vec<Range<usize>>>) -> Result<(), Error> {
        let mut text = self.document(rule)?.raw().to_owned();
        for cut in cuts.ok_or_else(|| form(rule))?.into_iter().rev() {
            text.replace_range(cut, "");
        }
        let document = Document::parse(text).map_err(|_| form(rule))?;
        self.0.insert(rule.file().to_owned(), document);
        Ok(())
    }
}

impl<'d> Rules<'d> {
    fn get(&self, place: usize) -> Option<&'d dyn TableLike> {
        match self {
            Self::Tables(tables) => tables.get(place).map(|table| table as &dyn TableLike),
            Self::List(list) => {
                let table = list.get(place)?.as_inline_table()?;
                Some(table)
            }
        }
    }
}

fn document(file: &SourceFile) -> Result<Document<String>, Error> {
    let form = || Error::Form {
        what: file.name.clone(),
        place: file.name.clone(),
    };
    let text = String::from_utf8(file.bytes.clone()).map_err(|_| form())?;
    Document::parse(text).map_err(|_| form())
}

fn rules(document: &Document<String>) -> Option<Rules<'_>> {
    match document.get("rule")? {
        Item::ArrayOfTables(tables) => Some(Rules::Tables(tables)),
        Item::Value(Value::Array(list)) => Some(Rules::List(list)),
        _ => None,
    }
}

fn form(rule: RuleView<'_>) -> Error {
    Error::Form {
        what: format!("rule `{}`", rule.name()),
        place: format!("{}:{}", rule.file(), rule.line()),
    }
}

/// Where the last line ends that holds a value of this table.
fn end(text: &str, table: &dyn TableLike) -> Option<usize> {
    let values = table.iter().filter_map(|(_, item)| item.as_value());
    let last = values.filter_map(|value| Some(value.span()?.end)).max()?;
    let rest = text.get(last..)?;
    Some(rest.find('\n').map_or(text.len(), |line| last + line + 1))
}

/// What to cut so that a list lacks one entry. A comment above an entry, or behind it on its line, is
/// about it.
fn entry(text: &str, list: &Array, place: usize) -> Option<Vec<Range<usize>>> {
    let all = list.span()?;
    let own = list.get(place)?.span()?;
    let neighbour = |place: Option<usize>| list.get(place?).and_then(Value::span);
    let before = neighbour(place.checked_sub(1)).map_or(all.start + 1, |before| before.end);
    let after = neighbour(place.checked_add(1)).map_or(all.end - 1, |after| after.start);
    let comma_before = comma(text, before..own.start);
    let comma_after = comma(text, own.end..after);

    let line = line_end(
        text,
        comma_before.map_or(before, |comma| comma + 1)..own.start,
    );
    let behind = comma_after.map_or(own.end, |comma| comma + 1);
    let next_line = line_end(text, behind..after);
    let cut = match (line, next_line) {
        // It has lines of its own.
        (Some(line), Some(next_line)) => line..next_line,
        (Some(_), None) if comma_after.is_some() => own.start..after,
        // The first one of its line: the next takes its place.
        (None, None) if comma_before.is_none() && comma_after.is_some() => own.start..after,
        (Some(line), None) => line..behind,
        (None, _) if comma_after.is_some() => {
            comma_before.map_or(before, |comma| comma + 1)..behind
        }
        (None, _) => comma_before.unwrap_or(before)..behind,
    };
    // The last one of a list that ends without a comma leaves it so.
    let comma = comma_before.filter(|comma| comma_after.is_none() && *comma < cut.start);
    let comma = comma.map(|comma| comma..comma + 1);
    Some(comma.into_iter().chain([cut]).collect())
}

/// The comma between two values. There are blanks and comments beside it, and nothing else.
fn comma(text: &str, gap: Range<usize>) -> Option<usize> {
    let mut is_comment = false;
    let found = text.get(gap.clone())?.bytes().position(|byte| {
        is_comment = byte == b'#' || is_comment && byte != b'\n';
        byte == b',' && !is_comment
    })?;
    Some(gap.start + found)
}

/// Where the first line in this gap ends.
fn line_end(text: &str, gap: Range<usize>) -> Option<usize> {
    let found = text.get(gap.clone())?.find('\n')?;
    Some(gap.start + found + 1)
}
