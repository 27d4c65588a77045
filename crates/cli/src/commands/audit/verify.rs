//! `arcbroker audit verify`

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    audit::{
        files::Files,
        verify::{Report, Verifier},
    },
    exit::{Exit, Failure},
    output::{self, Page, Tone, counted},
};

pub(super) fn run(config: Option<&Path>, named: &[PathBuf], json: bool) -> Result<Exit, Failure> {
    let files = if named.is_empty() {
        Files::of(&super::file(config, None)?)?
    } else {
        Files {
            plain: named.to_vec(),
            skipped: Vec::new(),
        }
    };
    let mut verifier = Verifier::default();
    for path in &files.plain {
        verifier.file(path)?;
    }
    let report = verifier.finish();
    if json {
        output::print_json(&Document::new(&report, &files))?;
    } else {
        fill(&report, &files).print()?;
    }
    Ok(if report.faults == 0 {
        Exit::OK
    } else {
        Exit::FAILED
    })
}

fn fill(report: &Report, files: &Files) -> Page {
    let mut page = Page::new();
    for path in &files.skipped {
        page.line(&format!(
            "not read, because it is compressed: {}",
            path.display()
        ));
    }
    for fault in &report.shown {
        page.verdict(Tone::Bad, &fault.place, &format!(": {}", fault.what));
    }
    let more = report.faults - report.shown.len() as u64;
    if more > 0 {
        page.line(&format!("… and {more} more"));
    }
    let records = counted(report.records, "record");
    let span = match (&report.first, &report.last) {
        (Some(first), Some(last)) => format!(" from {first} to {last}"),
        _ => String::new(),
    };
    let files = counted(files.plain.len() as u64, "file");
    match report.faults {
        0 => page.verdict(
            Tone::Good,
            "whole",
            &format!(": {records} in {files}{span}"),
        ),
        _ => page.verdict(
            Tone::Bad,
            "broken",
            &format!(": {records} in {files}{span}"),
        ),
    };
    if let Some(seq) = report.begins_at {
        page.line(&format!(
            "the first is record {seq}: what came before it is not here to be looked at"
        ));
    }
    page
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    records: u64,
    first: Option<&'a str>,
    last: Option<&'a str>,
    begins_at: Option<u64>,
    faults: u64,
    shown: Vec<Fault<'a>>,
    files: Vec<String>,
    skipped_files: Vec<String>,
}

#[derive(Serialize)]
struct Fault<'a> {
    place: &'a str,
    what: &'a str,
}

impl<'a> Document<'a> {
    fn new(report: &'a Report, files: &Files) -> Self {
        let texts = |paths: &[PathBuf]| {
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        let fault = |fault: &'a crate::audit::verify::Fault| Fault {
            place: &fault.place,
            what: &fault.what,
        };
        Self {
            schema: arcbroker_client::wire::SCHEMA,
            records: report.records,
            first: report.first.as_deref(),
            last: report.last.as_deref(),
            begins_at: report.begins_at,
            faults: report.faults,
            shown: report.shown.iter().map(fault).collect(),
            files: texts(&files.plain),
            skipped_files: texts(&files.skipped),
        }
    }
}
