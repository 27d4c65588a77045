//! The policy as files: found, checked for who may have written them, read, and judged together.
//!
//! The daemon that decides by them and the command that writes and tries them judge by this code, so
//! that what the one shows is what the other does. Everything in here blocks: it reads files, and
//! asks the system for users and groups.

#![forbid(unsafe_code)]

mod accounts;
mod files;
mod unit_files;

pub use accounts::{accounts_of, group_id, user_id};
pub use files::{Loaded, NoUnits, Options, Owners, has_files, load, load_each, load_text, read};
