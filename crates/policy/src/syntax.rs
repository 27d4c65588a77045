//! The TOML parser's errors, in words for the author of the file.

use std::ops::Range;

use crate::source::Source;

const MISSING_COMMA: &str = "missing comma between array elements";
const UNCLOSED_LIST: &str = "unclosed array";

/// An error in the grammar of a file.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// The errors that the author made: not more than one a line, and none that only follows from one.
pub(crate) fn reworded(source: &Source, errors: &[toml::de::Error]) -> Vec<SyntaxError> {
    let mut found: Vec<SyntaxError> = errors.iter().map(|error| error_of(source, error)).collect();
    if let Some(open) = open_list(source, &found) {
        found.retain(|error| error.range.start < open.range.start);
        found.push(open);
    }
    found.sort_by_key(|error| error.range.start);
    found.dedup_by_key(|error| source.line(error.range.start));
    found
}

/// A list without its `]` swallows all that follows, and every line of that is then an error.
fn open_list(source: &Source, errors: &[SyntaxError]) -> Option<SyntaxError> {
    errors.iter().find(|error| error.message == UNCLOSED_LIST)?;
    let begins_a_line = |error: &&SyntaxError| {
        error.message == MISSING_COMMA && source.line_before(error.range.start).trim().is_empty()
    };
    let end = source
        .before(errors.iter().find(begins_a_line)?.range.start)
        .trim_end()
        .len();
    Some(SyntaxError {
        range: end..end,
        message: "the list is not closed".to_owned(),
        help: Some("write ] after its last entry".to_owned()),
    })
}

fn error_of(source: &Source, error: &toml::de::Error) -> SyntaxError {
    let range = error.span().unwrap_or_default();
    let marked = source.text().get(range.clone()).unwrap_or_default();
    let (message, help) = words(error.message(), marked);
    SyntaxError {
        range,
        message,
        help,
    }
}

fn words(message: &str, marked: &str) -> (String, Option<String>) {
    let (message, expected) = message
        .split_once(", expected ")
        .unwrap_or((message, "nothing"));
    let is_word = marked.starts_with(|first: char| first.is_alphabetic());
    let (message, help) = match message {
        "duplicate key" => (
            format!("key `{marked}` is given twice"),
            "remove one of the two".to_owned(),
        ),
        "invalid basic string" | "invalid literal string" if expected.len() == 3 => (
            "the string is not closed".to_owned(),
            format!("write {} at its end", expected.trim_matches('`')),
        ),
        "string values must be quoted" => unquoted(marked),
        "invalid float" | "invalid boolean" | "invalid datetime" if is_word => unquoted(marked),
        _ if expected == "nothing" => return (message.to_owned(), None),
        _ => (message.to_owned(), format!("expected {expected}")),
    };
    (message, Some(help))
}

fn unquoted(word: &str) -> (String, String) {
    let lower = word.to_ascii_lowercase();
    if lower == "true" || lower == "false" {
        return (
            format!("`{word}` must be in lower case"),
            format!("write {lower}"),
        );
    }
    (
        "a string must be in quotes".to_owned(),
        format!("write \"{word}\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<(usize, String, String)> {
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);
        let source = Source::new("f", text.to_owned());
        let errors = reworded(&source, &errors).into_iter();
        let line = |error: &SyntaxError| source.line(error.range.start);
        errors
            .map(|error| (line(&error), error.message, error.help.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn common_slips_are_named_in_the_authors_words() {
        for (text, message, help) in [
            (
                "a = nightly backup",
                "a string must be in quotes",
                "write \"nightly backup\"",
            ),
            (
                "a = identity",
                "a string must be in quotes",
                "write \"identity\"",
            ),
            ("a = True", "`True` must be in lower case", "write true"),
            (
                "a = 1\na = 2",
                "key `a` is given twice",
                "remove one of the two",
            ),
            ("a = \"b", "the string is not closed", "write \" at its end"),
            ("a = 'b", "the string is not closed", "write ' at its end"),
            ("a b", "key with no value", "expected `=`"),
            ("a = 01", "unexpected leading zero", ""),
        ] {
            let found = errors(text);
            let [(_, found_message, found_help)] = found.as_slice() else {
                panic!("{text}: {found:?}")
            };
            assert_eq!(
                (found_message.as_str(), found_help.as_str()),
                (message, help),
                "{text}"
            );
        }
    }

    #[test]
    fn an_open_list_is_one_error_where_it_should_end() {
        let text = "a = 01\nb = [\"x\",\n \"y\"\n\n[[rule]]\nname = \"n\"\n";
        let found = errors(text);
        let expected = [
            (1, "unexpected leading zero"),
            (3, "the list is not closed"),
        ];
        assert_eq!(
            found
                .iter()
                .map(|(line, message, _)| (*line, message.as_str()))
                .collect::<Vec<_>>(),
            expected
        );
    }
}
