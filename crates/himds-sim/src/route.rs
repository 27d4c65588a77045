//! Which answer a request gets, by its path and method.

use std::{net::SocketAddr, sync::Arc};

use hyper::{Method, body::Incoming};
use serde_json::json;

use crate::{
    challenge::KeyRing,
    crowd::Crowd,
    fault::{Draw, FaultSet},
    fault_table::Name,
    himds, hostile, imds,
    imds::Limits,
    instance,
    journal::{Journal, Kind, Verdict},
    keys,
    options::Options,
    request::Ask,
    token::TokenCache,
    wire::{Answer, Reply, Sent, Then},
};

/// All that the answers depend on.
pub(crate) struct Site {
    pub(crate) options: Options,
    pub(crate) address: SocketAddr,
    pub(crate) faults: Arc<FaultSet>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) tokens: TokenCache,
    pub(crate) limits: Limits,
    pub(crate) crowd: Crowd,
}

const TOKEN: &str = "/metadata/identity/oauth2/token";
const INSTANCE: &str = "/metadata/instance";
const IDENTITY_INFO: &str = "/metadata/identity/info";

/// Answers a request and writes it down.
pub(crate) async fn answer(
    site: &Site,
    connection: u64,
    request: hyper::Request<Incoming>,
) -> Sent {
    let ask = Ask::read(connection, &request);
    let ticket = site.journal.open(&ask);
    let mut draw = Draw::new(&site.faults);
    let answer = decide(site, &ask, &mut draw).await;
    ticket.close(Verdict {
        authorization: answer.authorization,
        status: answer.status,
        kind: answer.kind,
        key: answer.key.clone(),
        faults: draw.struck,
        outcome: answer.outcome(),
    });
    answer.sent
}

async fn decide(site: &Site, ask: &Ask, draw: &mut Draw) -> Answer {
    if ask.path.starts_with("/metadata/") {
        if let Some(strike) = draw.take(Name::Starting) {
            let answer = Answer::error(503, "service_unavailable", "The service is starting");
            return hostile::retry_after(answer, strike.text());
        }
        return metadata(site, ask, draw).await;
    }
    let known = match ask.path.as_str() {
        "/.well-known/jwks.json" => Answer::other(&keys::signer().await.jwks()),
        "/.well-known/openid-configuration" => Answer::other(&openid_configuration(site)),
        "/agentstatus" if !site.options.imds => Answer::other(&json!({ "status": "Connected" })),
        _ => return unknown_path(),
    };
    if ask.method == Method::GET {
        known
    } else {
        wrong_method()
    }
}

async fn metadata(site: &Site, ask: &Ask, draw: &mut Draw) -> Answer {
    let imds = site.options.imds;
    let path = ask.path.as_str();
    // SDKs with AZURE_POD_IDENTITY_AUTHORITY_HOST add a slash; that the real IMDS takes it is a guess.
    let is_token = path == TOKEN || imds && path.strip_suffix('/') == Some(TOKEN);
    let instance_part = path
        .strip_prefix(INSTANCE)
        .filter(|part| part.is_empty() || part.starts_with('/'));
    let is_info = path == IDENTITY_INFO && (imds || draw.hits(Name::IdentityInfo));
    let is_versions = path == "/metadata/versions" && imds;
    if !(is_token || instance_part.is_some() || is_info || is_versions) {
        return unknown_path();
    }
    if ask.method != Method::GET {
        return wrong_method();
    }
    let _permit = match admit(site, path.starts_with("/metadata/identity/")) {
        Ok(permit) => permit,
        Err(answer) => return *answer,
    };
    match instance_part {
        Some(part) => instance(site, ask, part, draw).await,
        None if is_token && imds => imds::token(site, ask, draw).await,
        None if is_token => himds::token(site, ask, draw).await,
        None if is_info => identity_info(site, ask),
        None => Answer::other(&json!({ "apiVersions": imds::VERSIONS.as_slice() })),
    }
}

fn admit(site: &Site, identity: bool) -> Result<Option<imds::Permit<'_>>, Box<Answer>> {
    if !(site.options.imds && site.options.rate_limits) {
        return Ok(None);
    }
    let now = site.options.clock.millis();
    if identity {
        site.limits.identity(now).map(Some)
    } else {
        site.limits.other(now).map(|()| None)
    }
}

async fn instance(site: &Site, ask: &Ask, part: &str, draw: &mut Draw) -> Answer {
    if let Some(strike) = draw.take(Name::InstanceDelay) {
        tokio::time::sleep(strike.millis()).await;
    }
    if let Some(strike) = draw.take(Name::InstanceStatus) {
        return hostile::status(strike.status());
    }
    if draw.hits(Name::InstanceHang) {
        return Answer::nothing(Then::Hang);
    }
    if let Err(answer) = if site.options.imds {
        imds::check(ask)
    } else {
        himds::check_instance(ask)
    } {
        return *answer;
    }
    let mut machine = site.options.machine.clone();
    if draw.hits(Name::InstanceOtherMachine) {
        machine.name.push_str("-other");
        machine.subscription_id = machine.vm_id.clone();
    }
    let metadata = instance::metadata(&machine, site.options.imds);
    match instance::part(&metadata, part) {
        None => unknown_path(),
        Some(serde_json::Value::String(leaf)) if ask.parameter("format") == Some("text") => {
            Answer::new(
                Kind::Instance,
                Reply::new(200, "text/plain; charset=utf-8", leaf.as_str()),
            )
        }
        Some(part) => Answer::new(Kind::Instance, Reply::json(200, part)),
    }
}

fn identity_info(site: &Site, ask: &Ask) -> Answer {
    let checked = if site.options.imds {
        imds::check_identity(ask)
    } else {
        himds::check_instance(ask)
    };
    match checked {
        Ok(()) => Answer::other(&json!({ "tenantId": site.options.machine.tenant_id })),
        Err(answer) => *answer,
    }
}

fn openid_configuration(site: &Site) -> serde_json::Value {
    json!({
        "issuer": format!("https://sts.windows.net/{}/", site.options.machine.tenant_id),
        "jwks_uri": format!("http://{}/.well-known/jwks.json", site.address),
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
    })
}

fn unknown_path() -> Answer {
    Answer::error(404, "not_found", "The requested path does not exist")
}

fn wrong_method() -> Answer {
    Answer::error(405, "method_not_allowed", "Only GET is allowed").with_header("Allow", "GET")
}
