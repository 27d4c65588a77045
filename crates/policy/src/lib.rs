//! Who may have which token: the rules of the policy files, and the decision.
//!
//! Guarantees:
//!
//! - Nothing is granted but by a rule, not even to uid 0, and a [`Grant`] cannot be made otherwise.
//! - More rules never take anything away: the policy is the union of what each rule allows.
//! - Users, groups, units and resources are compared exactly: no case folding, no normalisation.
//! - What could not be found out about a caller matches no rule.
//! - Files with a mistake make no policy. All mistakes are reported in one run, each with its place,
//!   and nothing that a file contains reaches the terminal as a control character.
//!
//! There is no I/O in here: files, the accounts of the system and the evidence about a caller are
//! values. [`Document`], [`Table`] and [`Diagnostics`] also read the configuration of the daemon.
//!
//! ```
//! use arcbroker_policy::{
//!     Accounts, Caller, Cloud, Denial, Diagnostics, Identity, Resource, RuleSet, SourceFile, Unit,
//! };
//!
//! let file = SourceFile {
//!     name: "/etc/arcbroker/policy.d/backup.toml".to_owned(),
//!     bytes: br#"
//!         version = 1
//!         [[rule]]
//!         name = "nightly backup"
//!         user = "backup"
//!         unit = "backup.service"
//!         resources = ["storage", "api://backup.example"]
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
//! let backup = Caller { unit: Some(Unit::parse("backup.service")?), ..Caller::new(34, 34, vec![]) };
//! let api = Resource::exact("api://backup.example")?;
//! let grant = policy.decide(&backup, &Identity::System, &api).expect("a rule allows it");
//! assert_eq!(grant.rule(), "nightly backup");
//!
//! let root = Caller::new(0, 0, vec![]);
//! assert_eq!(policy.decide(&root, &Identity::System, &api), Err(Denial::NoRuleForCaller));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod caller;
mod cloud;
mod compare;
mod control_group;
mod diagnostic;
mod document;
mod escape;
mod explain;
mod given;
mod guid;
mod identity;
mod index;
mod lint;
mod policy;
mod resource;
mod rule;
mod rule_set;
mod source;
mod spelling;
mod subject;
mod suggest;
mod syntax;
mod table;
mod unit;
mod view;

pub use caller::Caller;
pub use cloud::Cloud;
pub use compare::{Change, Comparison, Permission, Subject, compare};
pub use control_group::ControlGroup;
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use document::{Document, MAX_FILE};
pub use explain::{Allowance, Condition, Examined, Explanation, Replayed};
pub use given::Given;
pub use guid::{Guid, NotAGuid};
pub use identity::{ArmId, Identity, IdentityError};
pub use lint::UnitFile;
pub use policy::{Allowed, Denial, Grant, Policy};
pub use resource::{MAX_RESOURCE, Resource, ResourceError};
pub use rule::{MAX_RULE_NAME, ResourcePattern, may_be_in_rule_name};
pub use rule_set::{RuleSet, SourceFile};
pub use source::{Location, Spanned};
pub use subject::Accounts;
pub use suggest::{allow_command, shell_word};
pub use table::{Scalar, Table};
pub use unit::{Unit, UnitError, UnitPattern};
pub use view::RuleView;
