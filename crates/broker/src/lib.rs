//! A broker that hands out Azure Arc access tokens to the local processes that may have them.
//!
//! One request takes one path, and values move right:
//!
//! ```text
//!     accept ──► identify ──► read ──► authorize ──► acquire ──► audit ──► respond
//!     server     peer         ask      policy crate  cache       visit     reply
//!                                                      │
//!                                                      └─► upstream ─► himds, imds ─► link, dial, owner, challenge, issue
//! ```
//!
//! [`service`] shows the path as one function. A token is only handed out for a
//! [`Grant`](arcbroker_policy::Grant), and only the policy makes one; a sink has its record
//! before the token is on its way out.
//!
//! Modules are declared in the order of their dependencies: each uses only those above it.

#![forbid(unsafe_code)]

mod lock;
mod off_thread;
mod sealed;
pub mod manager;
pub mod clock;
pub mod chance;
pub mod digest;
pub mod note;
pub mod token;
pub mod names;
pub mod tree;
pub mod pinned;
pub mod ability;
pub mod unit_group;
pub mod evidence;
pub mod peer;
pub mod retry;
pub mod pace;
pub mod brief;
pub mod throttle;
pub mod breaker;
pub mod turns;
pub mod hold;
pub mod slot;
pub mod deposits;
pub mod flight;
pub mod principals;
pub mod cache;
pub mod owner;
pub mod owners;
pub mod dial;
pub mod link;
pub mod kind;
pub mod challenge;
pub mod issue;
pub mod failure;
pub mod himds;
pub mod imds;
pub mod detect;
pub mod window;
pub mod upstream;
pub mod place;
pub mod documents;
mod lane;
mod audit_file;
pub mod stray;
pub mod record;
mod journal;
mod sinks;
mod chain;
mod scribe;
pub mod audit;
pub mod shadow;
pub mod rules;
pub mod ask;
pub mod registry;
pub mod bypass;
pub mod reply;
pub mod refusal;
pub mod decisions;
pub mod visit;
pub mod query;
pub mod explain;
pub mod timed_grants;
pub mod rounds;
pub mod gate;
pub mod loopback;
pub mod client_end;
pub mod registrant;
pub mod endpoint;
pub mod keep;
pub mod status;
pub mod service;
pub mod admin;
pub mod listen;
pub mod stream;
mod farewell;
pub mod server;
pub mod desk;
pub mod enrol;
pub mod endpoints;
pub mod pulse;
pub mod process;
pub mod ticker;
pub mod upkeep;
mod journal_log;
pub mod logging;
pub mod confine;
mod section;
pub mod config;
pub mod args;
pub mod check;
pub mod daemon;
