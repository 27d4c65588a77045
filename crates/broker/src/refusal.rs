//! What a client is told when it gets no token: what happened, and what can be done about it.
//!
//! Statuses are chosen by what the SDKs do with them (`docs/protocol.md`): 400 and 403 are final,
//! 429, 502 and 503 are tried again, and nothing else is sent. Details that only an administrator may
//! know stay in the log and in `status`.

use std::time::Duration;

use arcbroker_client::wire::ACCESS_DENIED;
use arcbroker_policy::{Identity, Resource, allow_command};
use hyper::StatusCode;

use crate::ask::{Malformed, NEWEST_APP_SERVICE_VERSIONS, NEWEST_VERSIONS};
use crate::audit::AuditError;
use crate::kind::Kind;
use crate::peer::Peer;
use crate::record::RequestId;
use crate::registry::NoPlace;
use crate::reply::Refusal;
use crate::stray::Stray;
use crate::throttle::Throttled;
use crate::token::{Class, FetchError};

/// When to come back after a failure that did not say for how long it is remembered.
const SOON: Duration = Duration::from_secs(2);

const INVALID: &str = "invalid_request";
/// Another word than for a denial by the policy.
const FORBIDDEN: &str = "forbidden";
pub(crate) const UNAVAILABLE: &str = "service_unavailable";
/// The word for a request or a connection over a limit.
pub(crate) const TOO_MANY: &str = "too_many_requests";

/// A request that cannot be judged.
pub fn malformed(malformed: &Malformed) -> Refusal {
    let (status, error, allow) = match malformed {
        Malformed::Method(method) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            Some(*method),
        ),
        _ => (StatusCode::BAD_REQUEST, INVALID, None),
    };
    let mut refusal = Refusal::new(status, error, malformed.to_string());
    refusal.allow = allow;
    match malformed {
        Malformed::ApiVersion => refusal.newest_versions = &NEWEST_VERSIONS,
        Malformed::AppServiceVersion => refusal.newest_versions = &NEWEST_APP_SERVICE_VERSIONS,
        _ => {}
    }
    // What follows on the connection may be the rest of this request.
    refusal.close = matches!(
        malformed,
        Malformed::Version | Malformed::Host | Malformed::Method(_) | Malformed::Body
    );
    refusal
}

/// A path that is not served.
pub fn unknown_path() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing under this path; docs/protocol.md has those that are served",
    )
}

/// No rule allows it. The same words for a resource that others may have and for one that does not
/// exist.
pub fn denied(peer: &Peer, identity: &Identity, resource: &Resource, id: RequestId) -> Refusal {
    let uid = peer.caller.uid;
    let mut who = match &peer.user {
        Some(user) => format!("uid {uid} ({user})"),
        None => format!("uid {uid}"),
    };
    if let Some(unit) = &peer.caller.unit {
        who = format!("{who} in {unit}");
    }
    let whose = match identity {
        Identity::System => String::new(),
        other => format!(" of identity {other}"),
    };
    let Some(container) = peer.caller.container else {
        let description = format!(
            "nothing is known of the process that connected as {who}, so no rule allows it a token{whose} for \
             {resource} (request {id}): it had ended, or it is in a namespace that arcbrokerd cannot see into. An \
             administrator can look into the log of arcbrokerd for what it cannot know of callers"
        );
        return Refusal::new(StatusCode::FORBIDDEN, ACCESS_DENIED, description);
    };
    let place = if container { " in a container" } else { "" };
    let allow = allow_command(&peer.caller, peer.user.as_deref(), identity, resource);
    let description = format!(
        "no rule allows {who}{place} a token{whose} for {resource} (request {id}). An administrator can see why: \
         sudo arcbroker why {id}; and allow it: sudo {allow}"
    );
    Refusal::new(StatusCode::FORBIDDEN, ACCESS_DENIED, description)
}

/// A request on an endpoint that is not the program's own: final for every SDK, and nothing of what is
/// behind it.
pub fn stray(stray: Stray) -> Refusal {
    let (status, error, description) = match stray {
        Stray::Host => (
            StatusCode::FORBIDDEN,
            FORBIDDEN,
            "the Host of the request is not the address of this endpoint",
        ),
        Stray::Browser => (
            StatusCode::FORBIDDEN,
            FORBIDDEN,
            "the request comes from a page in a browser",
        ),
        Stray::Proxy => (
            StatusCode::BAD_REQUEST,
            INVALID,
            "the request has come through a proxy: see that NO_PROXY has 127.0.0.1",
        ),
        Stray::Secret => (
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the request does not have the secret of this endpoint: send X-IDENTITY-HEADER with the value of \
             IDENTITY_HEADER",
        ),
        Stray::User | Stray::Gone => (
            StatusCode::FORBIDDEN,
            FORBIDDEN,
            "this endpoint was made for a program of another user",
        ),
    };
    let mut refusal = Refusal::new(status, error, description);
    refusal.close = true;
    refusal
}

/// A denial of an identity that was named, as App Service says it: SDKs look for these words.
pub fn no_such_identity(denied: &Refusal) -> Refusal {
    let description = format!(
        "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId: {}",
        denied.description
    );
    Refusal::new(StatusCode::BAD_REQUEST, INVALID, description)
}

/// Whether it is allowed depends on the cloud of the machine, which is not known yet.
pub fn unknown_cloud(kind: Kind) -> Refusal {
    let description = format!(
        "which cloud this machine is in is not known yet, and with it what the rules allow: {kind} has not told. Ask \
         again; an administrator can look with `arcbroker status`, or write [upstream] cloud"
    );
    for_the_moment(description)
}

/// It may be otherwise soon.
fn for_the_moment(description: impl Into<String>) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, description);
    refusal.retry_after = Some(SOON);
    refusal
}

/// It comes too early.
pub fn throttled(throttled: &Throttled) -> Refusal {
    let description = throttled.limit.to_string();
    let mut refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, description);
    refusal.retry_after = Some(throttled.wait);
    refusal
}

/// There is no place for another endpoint.
pub fn no_place(why: NoPlace) -> Refusal {
    let (status, error) = match why {
        NoPlace::Full | NoPlace::UserFull => (StatusCode::TOO_MANY_REQUESTS, TOO_MANY),
        NoPlace::Banned => (StatusCode::FORBIDDEN, FORBIDDEN),
    };
    let mut refusal = Refusal::new(status, error, why.to_string());
    refusal.retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(SOON);
    refusal
}

/// The daemon is about to end.
pub fn stopping() -> Refusal {
    for_the_moment("arcbrokerd is about to end. Ask again: another one follows it after an upgrade")
}

/// Others have passed what takes long to close.
pub fn closing() -> Refusal {
    for_the_moment(
        "what other programs have passed takes long to close, and no more is taken. Ask again",
    )
}

/// It takes too long to find out whom a rule names.
pub fn slow_names(waited: Duration) -> Refusal {
    let description = format!(
        "it takes longer than {} s to look up whom the rule names: see whether the name service answers, or give numbers",
        waited.as_secs()
    );
    for_the_moment(description)
}

/// It was allowed, but there is no token.
pub fn unavailable(kind: Kind, error: &FetchError) -> Refusal {
    let (status, code) = match error.class {
        Class::Down
        | Class::Deadline
        | Class::Broken
        | Class::Server
        | Class::Upgrading
        | Class::Busy
        | Class::Throttled => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        Class::Permanent | Class::UnknownIdentity => (StatusCode::BAD_REQUEST, INVALID),
        Class::Refused => (StatusCode::FORBIDDEN, FORBIDDEN),
        Class::Hostile | Class::Challenge | Class::KeyDenied | Class::StaleKey | Class::Garbage => {
            (StatusCode::BAD_GATEWAY, "server_error")
        }
    };
    let mut refusal = Refusal::new(status, code, explain(kind, error));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        refusal.retry_after = Some(error.retry_after.unwrap_or(SOON));
    }
    refusal
}

fn explain(kind: Kind, error: &FetchError) -> String {
    let words = error.upstream.as_deref().unwrap_or("it gave no reason");
    // What an administrator has besides `arcbroker status`.
    let (unit, tool) = match kind {
        Kind::Himds => ("`systemctl status himdsd` and ", " and `azcmagent show`"),
        Kind::Imds => ("", ""),
    };
    match error.class {
        Class::Down => format!(
            "{kind} does not answer on this machine, and there is no token left from before. Ask again; \
             an administrator can look with {unit}`arcbroker status`"
        ),
        Class::Deadline => {
            format!("{kind} has not given a token in time. The broker goes on trying: ask again")
        }
        Class::Broken | Class::Server | Class::Upgrading => format!(
            "{kind} cannot give a token at the moment. Ask again; an administrator can look with `arcbroker status`{tool}"
        ),
        Class::Busy => format!(
            "more new tokens are asked for at the moment than the broker asks {kind} for. Ask again after the time in \
             Retry-After; an administrator can raise fetches-per-second under [upstream]"
        ),
        Class::Throttled => format!(
            "{kind} wants fewer requests at the moment. Ask again after the time in Retry-After"
        ),
        Class::Permanent => format!("{kind} refused the request: {words}"),
        Class::UnknownIdentity => {
            "Identity not found: this machine has no such managed identity. Assign it, or leave the selector out"
                .to_owned()
        }
        Class::Refused => format!("{kind} refused to give the token: {words}"),
        Class::Hostile
        | Class::Challenge
        | Class::KeyDenied
        | Class::StaleKey
        | Class::Garbage => format!(
            "what answered in the place of {kind} could not be trusted or understood, and no token was taken from it. \
             An administrator finds the reason in `arcbroker status` and in the log of arcbrokerd"
        ),
    }
}

/// A token was there, but its record could not be written.
pub fn unrecorded(error: &AuditError) -> Refusal {
    tracing::error!(%error, "a token was held back because its record could not be written");
    let mut refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        UNAVAILABLE,
        "the decision could not be recorded, and a token is only handed out with a record. An administrator finds \
         the reason in `arcbroker status`; often the disk is full",
    );
    refusal.retry_after = Some(SOON);
    refusal
}

/// A document about the machine that cannot be had.
pub fn no_document(kind: Kind, error: &FetchError) -> Refusal {
    match error.class {
        Class::Refused | Class::Permanent => Refusal::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("{kind} on this machine does not have this document"),
        ),
        _ => unavailable(kind, error),
    }
}

#[cfg(test)]
mod tests {
    use arcbroker_policy::Caller;

    use super::*;

    const CLASSES: [(Class, u16); 15] = [
        (Class::Down, 503),
        (Class::Hostile, 502),
        (Class::Broken, 503),
        (Class::StaleKey, 502),
        (Class::Challenge, 502),
        (Class::KeyDenied, 502),
        (Class::Permanent, 400),
        (Class::UnknownIdentity, 400),
        (Class::Refused, 403),
        (Class::Server, 503),
        (Class::Upgrading, 503),
        (Class::Busy, 503),
        (Class::Throttled, 503),
        (Class::Garbage, 502),
        (Class::Deadline, 503),
    ];

    #[test]
    fn every_failure_has_its_status_and_only_a_503_says_when_to_come_back() {
        for (class, status) in CLASSES {
            let refusal = unavailable(Kind::Himds, &FetchError::new(class, "detail"));
            assert_eq!(refusal.status.as_u16(), status, "{class:?}");
            assert_eq!(refusal.retry_after.is_some(), status == 503, "{class:?}");
        }
    }

    #[test]
    fn a_denial_names_the_commands_that_explain_and_allow_it() {
        let unit = arcbroker_policy::Unit::parse("web.service").ok();
        let words = |unit, container| {
            let peer = Peer {
                caller: Caller {
                    unit,
                    container,
                    ..Caller::new(33, 33, vec![])
                },
                user: Some("www-data".into()),
                pid: None,
                invocation: None,
                endpoint: None,
            };
            let resource = Resource::exact("https://a").unwrap();
            let id = RequestId { run: 1, number: 2 };
            denied(&peer, &Identity::System, &resource, id).description
        };
        assert_eq!(
            words(None, Some(false)),
            "no rule allows uid 33 (www-data) a token for https://a (request 00000001-2). An administrator can see why: \
             sudo arcbroker why 00000001-2; and allow it: sudo arcbroker allow --user www-data https://a"
        );
        let contained = words(unit.clone(), Some(true));
        assert!(
            contained.contains("(www-data) in web.service in a container a token"),
            "{contained}"
        );
        let command = "allow --unit web.service --user www-data --container https://a";
        assert!(contained.ends_with(command), "{contained}");
        let unknown = words(unit, None);
        assert!(
            unknown.starts_with("nothing is known of the process"),
            "{unknown}"
        );
    }

    #[test]
    fn what_only_an_administrator_may_know_is_not_told() {
        for (class, _) in CLASSES {
            let refusal = unavailable(Kind::Himds, &FetchError::new(class, "MARKER"));
            assert!(!refusal.description.contains("MARKER"), "{class:?}");
        }
    }

    #[test]
    fn nobody_is_sent_to_the_azure_arc_agent_of_an_azure_vm() {
        for (class, _) in CLASSES {
            let error = FetchError::new(class, "detail");
            for refusal in [
                unavailable(Kind::Imds, &error),
                no_document(Kind::Imds, &error),
            ] {
                for word in ["HIMDS", "himds", "azcmagent"] {
                    assert!(
                        !refusal.description.contains(word),
                        "{class:?}: {}",
                        refusal.description
                    );
                }
            }
        }
    }
}
