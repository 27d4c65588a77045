//! Text that a terminal shows as it is, whatever a file or a caller put into it.
//!
//! Everything but visible ASCII and the space becomes an escape. So no control sequence and no
//! change of writing direction reaches a terminal, a letter that only looks like another one is
//! seen for what it is, and every character is one column wide.

use std::fmt::Write as _;

/// Columns that a tab takes in a quoted line.
const TAB: &str = "    ";

/// `text` in visible ASCII.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|character| push(&mut out, character));
    out
}

/// The beginning of `text` in visible ASCII, for a message about it.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut out = String::new();
    for character in text.chars() {
        if out.len() >= LONGEST {
            out.push_str("...");
            break;
        }
        push(&mut out, character);
    }
    out
}

/// A line of a file in visible ASCII, with tabs opened out.
pub(crate) fn visible_line(line: &str) -> String {
    visible(&line.replace('\t', TAB))
}

fn push(out: &mut String, character: char) {
    if character == ' ' || character.is_ascii_graphic() {
        out.push(character);
    } else if character.is_ascii() {
        out.extend(character.escape_default());
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}", character.escape_unicode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_visible_ascii_comes_through() {
        for (text, shown) in [
            ("plain text", "plain text"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("us\u{435}r", "us\\u{435}r"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("a\nb\tc", "a\\nb\\tc"),
            ("\u{85}\u{feff}", "\\u{85}\\u{feff}"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_line("\tuser"), "    user");
    }

    #[test]
    fn an_excerpt_is_short() {
        assert_eq!(excerpt("short"), "short");
        assert!(excerpt(&"\u{1f600}".repeat(500)).len() < 80);
    }
}
