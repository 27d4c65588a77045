//! A whole broker for a test: the shipped `arcbrokerd` under a user of its own, himds-sim in this
//! process, and everything they touch in one temporary directory.
//!
//! As root, the daemon runs as [`DAEMON_UID`] and is a member of [`HIMDS_GID`], as on a real
//! machine; otherwise as whoever runs the tests, and what needs other users says that it is
//! skipped (see [`skip_unless_root`]).

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and this crate is nothing but tests"
)]

mod answer;
mod binaries;
mod connection;
mod daemon;
mod disk;
mod elsewhere;
mod faults;
mod flood;
mod ground;
mod holder;
mod program;
mod relay;
mod rules;
mod trace;
mod upstream;
mod users;
mod world;

pub use answer::Answer;
pub use binaries::binary;
pub use connection::Connection;
pub use daemon::{Daemon, freeze};
pub use disk::SmallDisk;
pub use elsewhere::Elsewhere;
pub use flood::Flood;
pub use ground::Ground;
pub use holder::holder;
pub use program::{Endpoint, Program, exec};
pub use relay::Relay;
pub use rules::rules;
pub use trace::Trace;
pub use users::{DAEMON_UID, HIMDS_GID, SOCKET_GID, User, is_root, skip, skip_unless_root};
pub use world::{Setup, World};

use std::time::Duration;

/// How long a test waits for something that takes milliseconds on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}
