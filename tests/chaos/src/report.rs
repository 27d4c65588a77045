//! `docs/chaos.md`: the table with what was seen, written by the tests and checked by them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::matrix::{Group, Phase, Recovery, Row};
use crate::phase::Seen;

/// Everything below this line of the page is written by the tests.
const MARK: &str = "<!-- Below this line the page is written by the tests. -->\n";

/// What was seen, by fault and phase.
pub type Sightings = BTreeMap<(String, Phase), Seen>;

/// The page.
pub fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chaos.md")
}

/// The page with new tables.
///
/// # Errors
///
/// When the page has no place for them.
pub fn rewrite(page: &str, groups: &[Group], seen: &Sightings) -> Result<String, String> {
    let (head, _) = page
        .split_once(MARK)
        .ok_or("the page has no mark where the tables begin")?;
    let mut text = format!("{head}{MARK}");
    for group in groups {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {}\n\n", group.title);
        text.push_str("| Fault | Cold | Warm | Refresh | Drain | A token again |\n|---|---|---|---|---|---|\n");
        for row in &group.rows {
            text.push_str(&line(row, |phase| seen.get(&(row.name.clone(), phase))));
        }
    }
    Ok(text)
}

/// Whether the page shows exactly the cells of the matrix, whatever was seen in them.
///
/// # Errors
///
/// The first difference.
pub fn check(page: &str, groups: &[Group]) -> Result<(), String> {
    let (_, tables) = page
        .split_once(MARK)
        .ok_or("the page has no mark where the tables begin")?;
    let shown: Vec<_> = tables
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(without_sightings)
        .collect();
    let rows = groups.iter().flat_map(|group| &group.rows);
    let expected: Vec<_> = rows
        .map(|row| without_sightings(line(row, |_| None).trim_end()))
        .collect();
    match shown
        .iter()
        .zip(&expected)
        .find(|(shown, expected)| shown != expected)
    {
        Some((shown, expected)) => Err(format!(
            "the page says\n{shown}\nand the matrix\n{expected}"
        )),
        None if shown.len() == expected.len() => Ok(()),
        None => Err(format!(
            "the page has {} rows, and the matrix {}",
            shown.len(),
            expected.len()
        )),
    }
}

fn line<'a>(row: &Row, seen: impl Fn(Phase) -> Option<&'a Seen>) -> String {
    let mut line = format!("| `{}`<br>{} |", row.name, row.about);
    for phase in Phase::ALL {
        let Some(cell) = row.cells.get(&phase) else {
            line.push_str(" - |");
            continue;
        };
        let _ = write!(line, " {}", cell.text);
        if let Some(seen) = seen(phase) {
            let _ = write!(line, "<br>*{}*", sighting(seen));
        }
        line.push_str(" |");
    }
    let recovery = match row.recovery {
        Recovery::Within(most) => format!("within {} s", most.as_secs()),
        Recovery::OnDemand => "on demand".to_owned(),
        Recovery::NotWaited => "-".to_owned(),
    };
    let _ = writeln!(line, " {recovery} |");
    line
}

fn sighting(seen: &Seen) -> String {
    let mut text = format!(
        "{} after {}, {} asked",
        seen.answer,
        time(seen.took),
        seen.asked
    );
    if let Some(recovered) = seen.recovered {
        let _ = write!(text, ", a token {} later", time(recovered));
    }
    text
}

fn time(time: Duration) -> String {
    if time < Duration::from_millis(100) {
        return "0.1 s".to_owned();
    }
    format!("{:.1} s", time.as_secs_f64())
}

/// A row without the parts between `<br>*` and `*`.
fn without_sightings(line: &str) -> String {
    let mut parts = line.split("<br>*");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once('*').map_or("", |(_, rest)| rest));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{TEXT, parse};

    fn seen() -> Seen {
        Seen {
            answer: "503 service_unavailable, Retry-After 2".to_owned(),
            took: Duration::from_millis(1_840),
            asked: 4,
            recovered: Some(Duration::from_millis(20)),
        }
    }

    #[test]
    fn a_page_that_was_just_written_shows_the_matrix_and_an_older_one_does_not() {
        let groups = parse(TEXT).unwrap();
        let name = groups[0].rows[0].name.clone();
        let sightings = Sightings::from([((name, Phase::Cold), seen())]);
        let page = rewrite(&format!("# Head\n{MARK}old"), &groups, &sightings).unwrap();
        assert!(page.starts_with("# Head\n") && !page.contains("old\n"));
        assert!(page.contains(
            "<br>*503 service_unavailable, Retry-After 2 after 1.8 s, 4 asked, a token 0.1 s later*"
        ));
        assert_eq!(check(&page, &groups), Ok(()));
        assert!(check(&page, &groups[1..]).is_err());
        assert!(check(&page.replacen("at once", "soon", 1), &groups).is_err());
    }
}
