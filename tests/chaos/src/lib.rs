//! The chaos matrix: what a client of the shipped `arcbrokerd` sees while things go wrong, fault by
//! fault and phase by phase.
//!
//! `matrix.txt` says what is expected, and is made for reading. [`matrix`] reads it; [`fault`] puts
//! a fault in force and takes it away; [`phase`] plays one cell and compares; [`report`] writes
//! down what was seen. Nothing here knows what is right for any one fault.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and this crate is nothing but tests"
)]

pub mod effort;
pub mod expectation;
pub mod fault;
pub mod host;
pub mod intruder;
pub mod limits;
pub mod line;
pub mod matrix;
pub mod phase;
pub mod port;
pub mod report;
pub mod stage;
