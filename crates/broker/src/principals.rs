//! Which principal each identity is: it changes when a machine is connected anew, and then every
//! token from before belongs to somebody else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arcbroker_policy::Identity;

use crate::token::Claims;

/// The principals that upstream's tokens named last. Identities come from the policy, so that there
/// are only a few.
#[derive(Debug, Default)]
pub struct Principals(Mutex<HashMap<Identity, Known>>);

#[derive(Debug)]
struct Known {
    principal: Principal,
    /// How often it has become another one.
    changes: u64,
}

/// What a new token says of the principal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// The one that is known, or the first.
    Same,
    /// Another one: what came before is not the machine's own any more.
    Another,
    /// One that has been replaced since the token was asked for.
    Former,
}

/// Whom a token is issued to.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Principal {
    tenant: Option<String>,
    object: String,
}

impl Principals {
    /// How often this identity has become another principal: to be asked before a fetch.
    pub fn changes(&self, identity: &Identity) -> u64 {
        self.lock().get(identity).map_or(0, |known| known.changes)
    }

    /// Takes note of a new token, which was asked for after so many changes.
    pub fn learn(&self, identity: &Identity, claims: &Claims, changes: u64) -> Standing {
        let Some(object) = claims.oid.clone() else {
            return Standing::Same;
        };
        let principal = Principal {
            tenant: claims.tid.clone(),
            object,
        };
        let mut all = self.lock();
        let Some(known) = all.get_mut(identity) else {
            let known = Known {
                principal,
                changes: 0,
            };
            all.insert(identity.clone(), known);
            return Standing::Same;
        };
        if known.principal == principal {
            return Standing::Same;
        }
        if known.changes != changes {
            return Standing::Former;
        }
        *known = Known {
            principal,
            changes: changes + 1,
        };
        Standing::Another
    }

    /// A panic elsewhere leaves it as it was: each change is a single assignment.
    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(tid: &str, oid: Option<&str>) -> Claims {
        Claims {
            tid: Some(tid.to_owned()),
            oid: oid.map(str::to_owned),
            ..Claims::default()
        }
    }

    /// A token that is asked for now, and comes at once.
    fn learn(principals: &Principals, tid: &str, oid: &str) -> Standing {
        let changes = principals.changes(&Identity::System);
        principals.learn(&Identity::System, &claims(tid, Some(oid)), changes)
    }

    #[test]
    fn t40_another_object_or_tenant_is_another_principal_of_that_identity_alone() {
        let principals = Principals::default();
        let system = |tid, oid| learn(&principals, tid, oid);
        assert_eq!(system("t", "a"), Standing::Same, "the first is no change");
        assert_eq!(system("t", "a"), Standing::Same);
        assert_eq!(system("t", "b"), Standing::Another);
        assert_eq!(system("t", "b"), Standing::Same);
        assert_eq!(system("u", "b"), Standing::Another);
        let id = "11111111-2222-3333-4444-555555555555";
        let other: Identity = format!("client-id:{id}").parse().unwrap();
        let standing = principals.learn(&other, &claims("t", Some("a")), 0);
        assert_eq!(standing, Standing::Same);
    }

    #[test]
    fn i31_a_token_that_was_asked_for_before_a_change_is_no_change_back() {
        let principals = Principals::default();
        learn(&principals, "t", "a");
        let before = principals.changes(&Identity::System);
        assert_eq!(learn(&principals, "t", "b"), Standing::Another);
        let late = principals.learn(&Identity::System, &claims("t", Some("a")), before);
        assert_eq!(late, Standing::Former);
        assert_eq!(learn(&principals, "t", "b"), Standing::Same);
        assert_eq!(learn(&principals, "t", "a"), Standing::Another);
    }

    #[test]
    fn a_token_that_names_nobody_changes_nothing() {
        let principals = Principals::default();
        learn(&principals, "t", "a");
        let nobody = principals.learn(&Identity::System, &claims("t", None), 0);
        assert_eq!(nobody, Standing::Same);
        assert_eq!(learn(&principals, "t", "a"), Standing::Same);
    }
}
