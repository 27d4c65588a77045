//! The audit file and the ones that rotation has set aside, as the commands read them: line by line,
//! however long they are.

mod error;
pub(crate) mod files;
pub(crate) mod lines;
pub(crate) mod verify;

pub(crate) use error::Error;
