//! The only place that prints.
//!
//! Texts that came from the broker pass [`clean`] on their way to a terminal: a denial may quote
//! what somebody asked for.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::{
    args::Usage,
    exit::{Exit, Failure},
};

/// A screen of text, cleaned piece by piece as it is written.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    colours: bool,
}

/// How urgent a word is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
}

impl Page {
    /// With colours if standard output is a terminal that shows them.
    pub(crate) fn new() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self::with_colours(io::stdout().is_terminal() && !plain)
    }

    pub(crate) fn with_colours(colours: bool) -> Self {
        Self {
            text: String::new(),
            colours,
        }
    }

    pub(crate) fn blank(&mut self) -> &mut Self {
        self.text.push('\n');
        self
    }

    pub(crate) fn line(&mut self, text: &str) -> &mut Self {
        self.text.push_str(&clean(text));
        self.blank()
    }

    /// Several lines, such as a mistake with its quotation.
    pub(crate) fn lines(&mut self, text: &str) -> &mut Self {
        for line in text.lines() {
            self.line(line);
        }
        self
    }

    /// A line that begins with a word in colour.
    pub(crate) fn verdict(&mut self, tone: Tone, word: &str, rest: &str) -> &mut Self {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        let word = clean(word);
        if self.colours {
            write!(self, "\x1b[1;{code}m{word}\x1b[0m");
        } else {
            self.text.push_str(&word);
        }
        self.line(rest)
    }

    /// A label and its value; without a label, more of the value above.
    pub(crate) fn field(&mut self, label: &str, value: &str) -> &mut Self {
        write!(self, "{label:<10} ");
        self.line(value)
    }

    /// Columns as wide as their widest cell.
    pub(crate) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: &[[String; N]],
    ) -> &mut Self {
        let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned))
            .chain(
                rows.iter()
                    .map(|row| row.each_ref().map(|cell| clean(cell))),
            )
            .collect();
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            self.text.push_str(line.trim_end());
            self.blank();
        }
        self
    }

    pub(crate) fn print(&mut self) -> Result<(), Failure> {
        print(&std::mem::take(&mut self.text))
    }

    /// The screen so far, for a message.
    pub(crate) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    #[cfg(test)]
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

/// Prints a text as it is, and what is buffered before it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Output(error),
        })
}

/// Prints one line of JSON.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(|error| Failure::Output(error.into()))?;
    print(&format!("{}\n", escape_hidden(&text)))
}

/// Says on standard error what went wrong and what to do next.
pub(crate) fn failure(failure: &Failure) {
    if matches!(failure, Failure::ReaderGone) {
        return;
    }
    let mut text = String::new();
    for line in failure.report().unwrap_or_default().lines() {
        let _ = writeln!(text, "{}", clean(line));
    }
    let _ = writeln!(text, "arcbroker: {}", clean(&failure.to_string()));
    if let Some(advice) = failure.advice() {
        for line in advice.lines() {
            let _ = writeln!(text, "  {}", clean(line));
        }
    }
    // Where standard error is closed, the exit code has to do.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints help to standard output, or what is wrong with the command line to standard error.
pub(crate) fn usage(usage: &Usage) -> Exit {
    // A closed pipe is no failure, and for others there is nobody left to tell.
    let _ = usage.error.print();
    usage.exit
}

/// One line without control characters and without those that reorder or hide others.
pub(crate) fn clean(text: &str) -> String {
    let visible = text.chars().filter_map(|c| match c {
        '\n' | '\t' => Some(' '),
        c if hides(c) => None,
        c => Some(c),
    });
    let mut line: String = visible.take(LONGEST_LINE).collect();
    if line.chars().count() == LONGEST_LINE {
        line.push('…');
    }
    line
}

/// JSON leaves DEL, C1 and bidirectional controls as they are; terminals obey some of them.
fn escape_hidden(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if hides(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Characters; the broker's longest texts are far below.
const LONGEST_LINE: usize = 4000;

/// `1 token`, `2 tokens`
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_command_a_terminal() {
        for (text, shown) in [
            ("plain ü 日本", "plain ü 日本"),
            ("a\x1b[2Jb", "a[2Jb"),
            ("a\nb\tc\rd", "a b cd"),
            ("a\u{9b}31mb\x7f\x07", "a31mb"),
            ("\u{202e}gnp.exe\u{2066}\u{200b}", "gnp.exe"),
        ] {
            assert_eq!(clean(text), shown);
        }
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), LONGEST_LINE + 1);
    }

    #[test]
    fn json_keeps_the_text_and_shows_no_control_character() {
        let text = "a\x1b\u{9b}\u{7f}\u{202e}\u{10348}ü";
        let json = escape_hidden(&serde_json::to_string(text).unwrap());
        assert_eq!(json, "\"a\\u001b\\u009b\\u007f\\u202e\u{10348}ü\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut page = Page::with_colours(false);
        page.table(
            ["A", "LONG"],
            &[["\x1büber".into(), "1".into()], ["x".into(), String::new()]],
        );
        assert_eq!(page.into_text(), "A     LONG\nüber  1\nx\n");
    }

    #[test]
    fn colours_are_for_terminals() {
        for (colours, text) in [(false, "bad news\n"), (true, "\x1b[1;31mbad\x1b[0m news\n")] {
            let mut page = Page::with_colours(colours);
            page.verdict(Tone::Bad, "bad", " news");
            assert_eq!(page.into_text(), text);
        }
    }
}
