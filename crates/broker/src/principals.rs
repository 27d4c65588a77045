//! Which principal each identity is: it changes when a machine is connected anew, and then every
//! token from before belongs to somebody else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use arcbroker_policy::Identity;

use crate::token::Claims;

/// The principals that upstream's tokens named last. Identities come from the policy, so that there
/// are only a few.
#[derive(Debug, Default)]
pub struct Principals(Mutex<HashMap<Identity, Principal>>);

/// Whom a token is issued to.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Principal {
    tenant: Option<String>,
    object: String,
}

impl Principals {
    /// Takes note of what a new token says. True when it names another principal than the last one.
    pub fn learn(&self, identity: &Identity, claims: &Claims) -> bool {
        let Some(object) = claims.oid.clone() else {
            return false;
        };
        let principal = Principal {
            tenant: claims.tid.clone(),
            object,
        };
        // A panic elsewhere leaves it as it was: there is one change, and it is complete.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(identity.clone(), principal.clone());
        before.is_some_and(|before| before != principal)
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

    #[test]
    fn t40_another_object_or_tenant_is_another_principal_of_that_identity_alone() {
        let principals = Principals::default();
        let system = |tid, oid| principals.learn(&Identity::System, &claims(tid, Some(oid)));
        assert!(!system("t", "a"), "the first is no change");
        assert!(!system("t", "a"));
        assert!(system("t", "b"));
        assert!(!system("t", "b"));
        assert!(system("u", "b"));
        let id = "11111111-2222-3333-4444-555555555555";
        let other: Identity = format!("client-id:{id}").parse().unwrap();
        assert!(!principals.learn(&other, &claims("t", Some("a"))));
    }

    #[test]
    fn a_token_that_names_nobody_changes_nothing() {
        let principals = Principals::default();
        principals.learn(&Identity::System, &claims("t", Some("a")));
        assert!(!principals.learn(&Identity::System, &claims("t", None)));
        assert!(!principals.learn(&Identity::System, &claims("t", Some("a"))));
    }
}
