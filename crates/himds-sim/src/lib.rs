//! A simulator of HIMDS (the metadata service of Azure Arc) and of IMDS (that of an Azure VM).
//!
//! It serves real HTTP, writes real challenge key files and signs real JWTs, so that a client
//! cannot tell it from the service by anything that is known about the service. What is not known
//! about it is a switch, and what can go wrong with it is a fault: the crate's `README.md` lists
//! both. Its tokens are worth nothing outside of a test.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use himds_sim::{Options, Simulator};
//!
//! let directory = tempfile::tempdir().unwrap();
//! let himds = Simulator::start(Options::new(directory.path())).await.unwrap();
//! himds.set_fault("second-status=503:2".parse().unwrap());
//! assert!(himds.endpoint().starts_with("http://127.0.0.1:"));
//! assert!(himds.journal().is_empty());
//! himds.stop().await;
//! # });
//! ```
//!
//! One request takes one path: `server` accepts → `request` reads → `himds` or `imds` answers,
//! with a `challenge` or a `token`, changed by `hostile` where a fault says so → `journal` keeps
//! what happened → `wire` sends.

#![forbid(unsafe_code)]

mod args;
mod challenge;
mod clock;
mod control;
mod crowd;
mod fault;
mod fault_table;
mod himds;
mod hostile;
mod hostile_body;
mod imds;
mod instance;
mod issue;
mod journal;
mod key_file;
mod keys;
mod options;
mod request;
mod route;
mod server;
mod simulator;
mod token;
mod wire;

pub use args::{Args, fault_list};
pub use clock::{Clock, HandClock};
pub use fault::{Fault, FaultError};
pub use fault_table::{Spec, Stage, Takes, all as fault_table};
pub use journal::{Authorization, Entry, Kind, Outcome};
pub use options::{AgentVersion, Identity, Machine, Options};
pub use simulator::Simulator;
