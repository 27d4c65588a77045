//! Who may have which token: the rules of the policy files, and the decision.
//!
//! Guarantees:
//!
//! - Nothing is granted but by a rule, not even to uid 0, and a [`Grant`] cannot be made otherwise.
//! - More rules never take anything away: the policy is the union of what each rule allows.
//! - Users, groups and resources are compared exactly: no case folding, no normalisation.
//! - Files with a mistake make no policy. All mistakes are reported in one run, each with its place,
//!   and nothing that a file contains reaches the terminal as a control character.
//!
//! There is no I/O in here: files, the accounts of the system and the evidence about a caller are
//! values. [`Document`], [`Table`] and [`Diagnostics`] also read the configuration of the daemon.
//!
//! ```
//! use arcbroker_policy::{
//!     Accounts, Caller, Cloud, Denial, Diagnostics, Identity, Resource, RuleSet, SourceFile,
//! };
//!
//! let file = SourceFile {
//!     name: "/etc/arcbroker/policy.d/backup.toml".to_owned(),
//!     bytes: br#"
//!         version = 1
//!         [[rule]]
//!         name = "nightly backup"
//!         user = "backup"
//!         resources = ["storage", "https://vault.azure.net"]
//!     "#
//!     .to_vec(),
//! };
//! let mut diagnostics = Diagnostics::new();
//! let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).expect("no mistakes");
//! assert!(rules.user_names().contains("backup")); // the shell looks these up
//!
//! let mut accounts = Accounts::default();
//! accounts.users.insert("backup".to_owned(), 34);
//! let policy = rules.compile(&accounts, &mut diagnostics);
//! assert!(diagnostics.is_empty(), "{diagnostics}");
//!
//! let backup = Caller { uid: 34, gid: 34, groups: vec![] };
//! let vault = Resource::exact("https://vault.azure.net")?;
//! let grant = policy.decide(&backup, &Identity::System, &vault).expect("a rule allows it");
//! assert_eq!(grant.rule(), "nightly backup");
//!
//! let root = Caller { uid: 0, gid: 0, groups: vec![] };
//! assert_eq!(policy.decide(&root, &Identity::System, &vault), Err(Denial::NoRuleForCaller));
//! # Ok::<(), arcbroker_policy::ResourceError>(())
//! ```

#![forbid(unsafe_code)]

mod caller;
mod cloud;
mod diagnostic;
mod document;
mod escape;
mod guid;
mod identity;
mod index;
mod policy;
mod resource;
mod rule;
mod rule_set;
mod source;
mod spelling;
mod subject;
mod syntax;
mod table;

pub use caller::Caller;
pub use cloud::Cloud;
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use document::{Document, MAX_FILE};
pub use guid::{Guid, NotAGuid};
pub use identity::{ArmId, Identity, IdentityError};
pub use policy::{Allowed, Denial, Grant, Policy};
pub use resource::{MAX_RESOURCE, Resource, ResourceError};
pub use rule::ResourcePattern;
pub use rule_set::{RuleSet, SourceFile};
pub use source::{Location, Spanned};
pub use subject::Accounts;
pub use table::{Scalar, Table};
