//! The policy files as the commands see them: read, judged, changed, and told about.
//!
//! [`request`] is what a command line asks for, [`judge`] says what files allow, [`edit`] finds the
//! smallest change that takes something away, [`store`] makes changes to the directory so that a
//! reader never sees half of one, [`live`] brings them to the daemon or takes them back, and [`say`]
//! puts differences into words.

pub(crate) mod edit;
mod error;
pub(crate) mod judge;
pub(crate) mod live;
pub(crate) mod request;
pub(crate) mod say;
pub(crate) mod store;

pub(crate) use error::{Error, Mistakes};
