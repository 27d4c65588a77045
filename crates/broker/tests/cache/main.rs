//! The token cache over simulated time: a scripted source, tokio's paused clock, no sockets.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod herd;
mod identity;
mod kept;
mod life;
mod outage;
mod support;
mod wishes;
