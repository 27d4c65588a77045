//! `matrix.txt`: read as it is, with an error that names the line.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::expectation::{Cell, Kind, Token, Wait};
use crate::fault::Fault;

/// The table, part of the program that checks it.
pub const TEXT: &str = include_str!("../matrix.txt");

/// What goes on when the fault strikes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// There is no token yet.
    Cold,
    /// There is a fresh token.
    Warm,
    /// The token is refreshed while clients go on asking.
    Refresh,
    /// The daemon is told to end while a client waits.
    Drain,
}

impl Phase {
    /// In the order of the table's columns.
    pub const ALL: [Self; 4] = [Self::Cold, Self::Warm, Self::Refresh, Self::Drain];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Refresh => "refresh",
            Self::Drain => "drain",
        }
    }
}

/// How a token is had once the fault is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recovery {
    /// By itself, within this time.
    Within(Duration),
    /// When the administrator has it refreshed once more.
    OnDemand,
    /// It is not waited for.
    NotWaited,
}

/// What a row needs of the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// To be root.
    Root,
    /// To be root, and to be allowed to mount.
    Mount,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the table writes it; unique.
    pub name: String,
    /// The fault itself.
    pub fault: Fault,
    /// What it needs of the machine.
    pub needs: Needs,
    /// What is expected; nothing where the fault makes no sense in a phase.
    pub cells: BTreeMap<Phase, Cell>,
    /// How a token is had afterwards.
    pub recovery: Recovery,
    /// What happens, for people.
    pub about: String,
}

/// Rows with a heading.
#[derive(Clone, Debug)]
pub struct Group {
    /// The heading.
    pub title: String,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A mistake in the table.
#[derive(Debug, thiserror::Error)]
#[error("matrix.txt:{line}: {what}")]
pub struct MatrixError {
    line: usize,
    what: String,
}

/// The words that cells are made of.
#[derive(Default)]
struct Words {
    kinds: Vec<Kind>,
    waits: Vec<Wait>,
}

/// Reads the table.
///
/// # Errors
///
/// The first mistake.
pub fn parse(text: &str) -> Result<Vec<Group>, MatrixError> {
    let mut words = Words::default();
    let mut groups: Vec<Group> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let read = match (line.strip_prefix("== "), groups.last_mut()) {
            _ if line.is_empty() || line.starts_with('#') => Ok(()),
            (Some(title), _) => {
                let title = title.trim_end_matches(" ==").to_owned();
                groups.push(Group {
                    title,
                    rows: Vec::new(),
                });
                Ok(())
            }
            (None, Some(group)) => words.row(line).map(|row| group.rows.push(row)),
            (None, None) => words.define(line),
        };
        read.map_err(|what| MatrixError {
            line: index + 1,
            what,
        })?;
    }
    unique(&groups)?;
    Ok(groups)
}

fn unique(groups: &[Group]) -> Result<(), MatrixError> {
    let mut names: Vec<_> = groups
        .iter()
        .flat_map(|group| &group.rows)
        .map(|row| &row.name)
        .collect();
    names.sort();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(MatrixError {
            line: 0,
            what: format!("`{}` is there twice", two[0]),
        }),
        None => Ok(()),
    }
}

fn columns<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let columns: Vec<_> = line.split('|').map(str::trim).collect();
    let count = columns.len();
    columns
        .try_into()
        .map_err(|_| format!("{count} columns instead of {N}"))
}

impl Words {
    /// `answer | …` or `wait | …`.
    fn define(&mut self, line: &str) -> Result<(), String> {
        match line.split('|').next().unwrap_or_default().trim() {
            "answer" => self.kinds.push(kind(line)?),
            "wait" => self.waits.push(wait(line)?),
            other => {
                return Err(format!(
                    "`{other}` is neither an answer nor a wait, and no group has begun"
                ));
            }
        }
        Ok(())
    }

    fn row(&self, line: &str) -> Result<Row, String> {
        let [name, needs, cold, warm, refresh, drain, recovery, about] = columns(line)?;
        let mut cells = BTreeMap::new();
        for (phase, text) in Phase::ALL.into_iter().zip([cold, warm, refresh, drain]) {
            if text != "-" {
                cells.insert(phase, self.cell(text)?);
            }
        }
        Ok(Row {
            name: name.to_owned(),
            fault: name.parse()?,
            needs: match needs {
                "" => Needs::Nothing,
                "root" => Needs::Root,
                "mount" => Needs::Mount,
                other => return Err(format!("nothing is known of a need for `{other}`")),
            },
            cells,
            recovery: match recovery {
                "-" => Recovery::NotWaited,
                "ask" => Recovery::OnDemand,
                other => Recovery::Within(seconds(other)?),
            },
            about: about.to_owned(),
        })
    }

    /// `ANSWER [RETRY-AFTER], WAIT, ASKED`.
    fn cell(&self, text: &str) -> Result<Cell, String> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let [answer, wait, asked] = parts.as_slice() else {
            return Err(format!("`{text}` is not of the form `ANSWER, WAIT, ASKED`"));
        };
        let (name, retry) = answer
            .split_once(' ')
            .map_or((*answer, None), |(name, retry)| (name, Some(retry)));
        let kind = self.kinds.iter().find(|kind| kind.name == name);
        let wait = self.waits.iter().find(|known| known.name == *wait);
        Ok(Cell {
            text: text.to_owned(),
            kind: kind
                .ok_or_else(|| format!("there is no answer `{name}`"))?
                .clone(),
            seconds: retry.map(number).transpose()?,
            wait: wait
                .ok_or_else(|| format!("there is no such wait in `{text}`"))?
                .clone(),
            asked: number(asked)?,
        })
    }
}

fn kind(line: &str) -> Result<Kind, String> {
    let [_, name, status, error, retry_after, token, _] = columns(line)?;
    Ok(Kind {
        name: name.to_owned(),
        status: u16::try_from(number(status)?).map_err(|_| format!("`{status}` is no status"))?,
        error: error.to_owned(),
        retry_after: retry_after == "yes",
        token: match token {
            "" => Token::No,
            "new" => Token::New,
            "old" => Token::Old,
            other => return Err(format!("a token is `new` or `old`, not `{other}`")),
        },
    })
}

fn wait(line: &str) -> Result<Wait, String> {
    let [_, name, least, most, _] = columns(line)?;
    Ok(Wait {
        name: name.to_owned(),
        least: seconds(least)?,
        most: seconds(most)?,
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text
        .strip_suffix(" s")
        .ok_or_else(|| format!("`{text}` is not of the form `5 s`"))?;
    number(digits).map(Duration::from_secs)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str =
        "answer | old | 200 | | no | old | -\nwait | at once | 0 s | 2 s | -\n== G ==\n";

    fn mistake(row: &str) -> String {
        parse(&format!("{WORDS}{row}")).unwrap_err().to_string()
    }

    #[test]
    fn a_row_is_read_by_its_columns() {
        let row = "first-hang | root | - | old, at once, 0 | - | - | 5 s | nothing comes";
        let groups = parse(&format!("{WORDS}{row}")).unwrap();
        let row = &groups[0].rows[0];
        assert_eq!(
            (groups[0].title.as_str(), row.name.as_str()),
            ("G", "first-hang")
        );
        assert_eq!(
            (row.needs, row.recovery),
            (Needs::Root, Recovery::Within(Duration::from_secs(5)))
        );
        assert_eq!(row.cells.keys().collect::<Vec<_>>(), [&Phase::Warm]);
        let cell = &row.cells[&Phase::Warm];
        assert_eq!(
            (cell.kind.status, cell.kind.token, cell.asked),
            (200, Token::Old, 0)
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (row, what) in [
            (
                "first-hang | | - | - | - | - | 5 s",
                "4: 7 columns instead of 8",
            ),
            ("sneeze | | - | - | - | - | 5 s | x", "sneeze"),
            (
                "first-hang | wings | - | - | - | - | 5 s | x",
                "a need for `wings`",
            ),
            (
                "first-hang | | old | - | - | - | 5 s | x",
                "`ANSWER, WAIT, ASKED`",
            ),
            (
                "first-hang | | new, at once, 0 | - | - | - | 5 s | x",
                "no answer `new`",
            ),
            (
                "first-hang | | old, soon, 0 | - | - | - | 5 s | x",
                "no such wait",
            ),
            (
                "first-hang | | old, at once, x | - | - | - | 5 s | x",
                "`x` is not a number",
            ),
            (
                "first-hang | | - | - | - | - | 5 | x",
                "not of the form `5 s`",
            ),
        ] {
            let error = mistake(row);
            assert!(
                error.starts_with("matrix.txt:4: ") && error.contains(what),
                "{row}: {error}"
            );
        }
        let twice = "first-hang | | - | - | - | - | - | x\n".repeat(2);
        assert!(mistake(&twice).contains("`first-hang` is there twice"));
        assert!(
            parse("first-hang | x")
                .unwrap_err()
                .to_string()
                .contains("no group has begun")
        );
    }
}
