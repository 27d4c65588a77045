//! The real `arcbroker` against a socket that answers from a script.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod audit;
mod demo;
mod failures;
mod packaging;
mod place;
mod policies;
mod rules;
mod screens;
mod support;
mod tokens;
