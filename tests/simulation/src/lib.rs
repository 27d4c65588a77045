//! Machine-years of the daemon in seconds.
//!
//! What answers requests, the cache, the policy, the audit log and the client of HIMDS are those
//! that ship. The clocks, chance, and HIMDS behind its connection are simulated, and time jumps from
//! one event to the next. Faults are drawn from a seed: the same seed gives the same run. An
//! [observer](observer::Observer) hears of every event and checks the invariants of
//! `docs/simulation.md` at each.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and this crate is nothing but a test"
)]
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::unnecessary_debug_formatting,
    reason = "texts are made for a few requests and for people: what they cost does not count"
)]
#![allow(
    clippy::struct_excessive_bools,
    reason = "what is observed of a key or a machine is yes or no, many times over"
)]

pub mod answers;
pub mod calls;
pub mod campaign;
pub mod client;
pub mod dice;
pub mod event;
pub mod fault;
pub mod figures;
pub mod health;
pub mod himds;
pub mod holding;
pub mod invariant;
pub mod keys;
pub mod machine;
pub mod observer;
pub mod panics;
pub mod plan;
pub mod records;
pub mod timeline;
pub mod wire;
pub mod world;
