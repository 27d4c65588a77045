//! HIMDS as it is: the rows H01 to H29 of its checkable behaviours, and the simulator around it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod challenge;
mod running;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod token;

/// Where clocks that tests move begin.
const START: u64 = 1_800_000_000;

fn assert_lists_versions(answer: &support::Answer) {
    assert_eq!(answer.status, 400);
    assert!(!answer.text("error").is_empty());
    let description = answer.text("error_description");
    assert!(
        description.contains("Supported are 2021-02-01 2020-06-01 2019-11-01 2019-08-15"),
        "{description}"
    );
}
