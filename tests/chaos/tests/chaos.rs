//! Each cell of the matrix is a test: `cargo test -p arcbroker-chaos --test chaos -- himds-stopped`.
//!
//! With `ARCBROKER_CHAOS_REPORT` set, a run in which everything passed writes what it saw into
//! `docs/chaos.md`.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcbroker_chaos::limits::can_mount;
use arcbroker_chaos::matrix::{Group, Needs, Phase, Recovery, Row, TEXT, parse};
use arcbroker_chaos::phase::play;
use arcbroker_chaos::report::{Sightings, check, page, rewrite};
use arcbroker_e2e::{binary, is_root};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::{Handle, Runtime};

/// Nearly all of a cell's time is waiting.
const AT_ONCE: usize = 48;

/// What the project promises.
const PROMISED: usize = 120;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let groups = parse(TEXT).unwrap_or_else(|error| panic!("{error}"));
    if !arguments.list {
        binary("arcbrokerd");
    }
    let runtime = Runtime::new().unwrap();
    let sightings = Arc::new(Mutex::new(Sightings::new()));
    let mut trials = cells(&groups, runtime.handle(), &sightings);
    let reporting = std::env::var_os("ARCBROKER_CHAOS_REPORT").is_some();
    trials.push(Trial::test(
        "the matrix has the promised number of cells",
        {
            let count = trials.len();
            move || at_least(count, PROMISED)
        },
    ));
    if !reporting {
        let groups = groups.clone();
        trials.push(Trial::test(
            "docs/chaos.md shows the cells of the matrix",
            move || is_shown(&groups),
        ));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if reporting {
        let played =
            conclusion.num_failed + conclusion.num_ignored + conclusion.num_filtered_out == 0;
        assert!(
            played,
            "docs/chaos.md is written by a run in which every cell was played and passed"
        );
        let old = fs::read_to_string(page()).unwrap();
        fs::write(
            page(),
            rewrite(&old, &groups, &sightings.lock().unwrap()).unwrap(),
        )
        .unwrap();
    }
    conclusion.exit_code()
}

fn at_least(count: usize, promised: usize) -> Result<(), Failed> {
    if count >= promised {
        return Ok(());
    }
    Err(format!("{count} are not {promised}").into())
}

fn is_shown(groups: &[Group]) -> Result<(), Failed> {
    let text = fs::read_to_string(page()).unwrap();
    let advice = "ARCBROKER_CHAOS_REPORT=1 cargo test -p arcbroker-chaos writes it anew";
    check(&text, groups).map_err(|error| format!("{error}\n{advice}").into())
}

/// Those that wait for long first, so that they wait together.
fn cells(groups: &[Group], runtime: &Handle, sightings: &Arc<Mutex<Sightings>>) -> Vec<Trial> {
    let rows = groups.iter().flat_map(|group| &group.rows);
    let mut cells: Vec<_> = rows
        .flat_map(|row| row.cells.keys().map(move |phase| (row, *phase)))
        .collect();
    cells.sort_by_key(|(row, phase)| std::cmp::Reverse(length(row, *phase)));
    let missing = Missing::here();
    let cells = cells.into_iter();
    cells
        .map(|(row, phase)| trial(row, phase, missing, runtime, sightings))
        .collect()
}

/// How long a cell takes, about.
fn length(row: &Row, phase: Phase) -> Duration {
    let until_again = match row.recovery {
        Recovery::Within(most) if matches!(phase, Phase::Cold | Phase::Refresh) => most,
        _ => Duration::ZERO,
    };
    row.cells
        .get(&phase)
        .map_or(Duration::ZERO, |cell| cell.wait.least)
        + until_again
}

fn trial(
    row: &Row,
    phase: Phase,
    missing: Missing,
    runtime: &Handle,
    sightings: &Arc<Mutex<Sightings>>,
) -> Trial {
    let (row, runtime, sightings) = (row.clone(), runtime.clone(), Arc::clone(sightings));
    Trial::ignorable_test(format!("{} {}", row.name, phase.name()), move || {
        if let Some(reason) = missing.reason(row.needs) {
            return Ok(Completion::ignored_with(reason));
        }
        let seen = runtime.block_on(play(&row, phase)).map_err(Failed::from)?;
        sightings.lock().unwrap().insert((row.name, phase), seen);
        Ok(Completion::Completed)
    })
}

/// What this machine does not give us.
#[derive(Clone, Copy, Debug)]
struct Missing {
    root: bool,
    mount: bool,
}

impl Missing {
    fn here() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        Self {
            root: !is_root(),
            mount: !is_root() || !can_mount(scratch.path()),
        }
    }

    fn reason(self, needs: Needs) -> Option<&'static str> {
        match needs {
            Needs::Root if self.root => Some("it needs root, to run programs as other users"),
            Needs::Mount if self.mount => Some("it needs root that may mount a file system"),
            _ => None,
        }
    }
}
