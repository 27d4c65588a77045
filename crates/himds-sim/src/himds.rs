//! The token endpoint of HIMDS: a challenge, then a token.

use serde::Serialize;

use crate::{
    challenge::challenge,
    fault::Draw,
    fault_table::Name,
    hostile::{FIRST, SECOND, status},
    issue::{self, Order},
    journal::{Authorization, Kind},
    options::{Identity, Options},
    request::Ask,
    route::Site,
    wire::{Answer, Reply},
};

/// The api-versions of HIMDS, as its own error lists them.
pub(crate) const VERSIONS: [&str; 4] = ["2021-02-01", "2020-06-01", "2019-11-01", "2019-08-15"];

/// The version that the agent's own services ask for instance metadata with.
const INSTANCE_VERSION: &str = "2019-03-11";

/// Answers a token request.
pub(crate) async fn token(site: &Site, ask: &Ask, draw: &mut Draw) -> Answer {
    let Some(authorization) = ask.authorization() else {
        return first(site, ask, draw).await;
    };
    let resource = match check(ask) {
        Ok(resource) => resource.to_owned(),
        Err(answer) => return *answer,
    };
    let redeemed = site.keys.redeem(authorization);
    let mut answer = if redeemed.worth == Authorization::Matched {
        second(site, ask, resource, draw).await
    } else if let Some(strike) = draw.take(Name::BadKeyStatus) {
        status(strike.status())
    } else {
        challenge(&site.keys, draw)
    };
    answer.authorization = Some(redeemed.worth);
    answer.key = answer.key.or(redeemed.key);
    answer
}

async fn first(site: &Site, ask: &Ask, draw: &mut Draw) -> Answer {
    if let Some(answer) = FIRST.instead(draw, false).await {
        return answer;
    }
    let answer = match check(ask) {
        Err(answer) => *answer,
        Ok(resource) if draw.hits(Name::DirectToken) => {
            order(site, ask, resource.to_owned(), draw).await
        }
        Ok(_) => challenge(&site.keys, draw),
    };
    FIRST.onto(answer, draw)
}

async fn second(site: &Site, ask: &Ask, resource: String, draw: &mut Draw) -> Answer {
    if let Some(answer) = SECOND.instead(draw, false).await {
        return answer;
    }
    let answer = if draw.hits(Name::SecondChallenge) {
        challenge(&site.keys, draw)
    } else if let Some(strike) = draw.take(Name::Disconnected) {
        disconnected(u16::try_from(strike.number()).unwrap_or(500))
    } else {
        order(site, ask, resource, draw).await
    };
    SECOND.onto(answer, draw)
}

/// The real status and body are not known.
fn disconnected(code: u16) -> Answer {
    if !(200..600).contains(&code) {
        return status((500, None));
    }
    Answer::error(
        code,
        "server_error",
        "Error acquiring access token: login.microsoftonline.com cannot be reached",
    )
}

async fn order(site: &Site, ask: &Ask, resource: String, draw: &mut Draw) -> Answer {
    match identity(&site.options, ask) {
        Ok((identity, echo)) => {
            let knows_bypass = site.options.agent_version.knows_identities_and_bypass();
            let bypass_cache = knows_bypass && ask.parameter("bypass_cache") == Some("true");
            issue::token(
                site,
                Order {
                    resource,
                    identity,
                    echo,
                    bypass_cache,
                },
                draw,
            )
            .await
        }
        Err(answer) => *answer,
    }
}

type Whose = (Identity, Vec<(&'static str, String)>);

/// Whose token it is to be. `mi_res_id` is not looked at, as by agent 1.67.
fn identity(options: &Options, ask: &Ask) -> Result<Whose, Box<Answer>> {
    let system = options.machine.system_identity(false);
    if !options.agent_version.knows_identities_and_bypass() {
        return Ok((system, Vec::new()));
    }
    match selected(options, ask) {
        Ok(None) => Ok((system, Vec::new())),
        Ok(Some((name, identity, value))) => Ok((identity, vec![(name, value)])),
        Err(Unselectable::Several) => Err(Box::new(Answer::error(
            400,
            "invalid_request",
            "client_id, object_id and msi_res_id exclude each other",
        ))),
        Err(Unselectable::NotAssigned) => Err(Box::new(not_assigned())),
    }
}

fn not_assigned() -> Answer {
    let body = NotAssigned {
        error: "identity_not_found",
        error_description: "Identity not found: error acquiring access token: requested identity was not found",
        error_codes: [404],
    };
    Answer::new(Kind::Error, Reply::json(404, &body))
}

/// In the order of a real answer.
#[derive(Serialize)]
struct NotAssigned {
    error: &'static str,
    error_description: &'static str,
    error_codes: [u16; 1],
}

/// Why no identity was selected although one was asked for.
#[derive(Debug)]
pub(crate) enum Unselectable {
    /// More than one selector.
    Several,
    /// The machine does not have this identity.
    NotAssigned,
}

type Selected = (&'static str, Identity, String);

/// The identity that the query names, the selector that names it, and its value.
pub(crate) fn selected(options: &Options, ask: &Ask) -> Result<Option<Selected>, Unselectable> {
    let selectors = ["client_id", "object_id", "msi_res_id"];
    let mut given = selectors
        .into_iter()
        .filter_map(|name| ask.parameter(name).map(|value| (name, value)));
    let Some((name, value)) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Unselectable::Several);
    }
    let own = options.machine.system_identity(options.imds);
    let all = options.machine.user_identities.iter().chain([&own]);
    let found = all.map(|identity| (identity, field(identity, name)));
    let (identity, value) = found
        .into_iter()
        .find(|(_, known)| known.eq_ignore_ascii_case(value))
        .ok_or(Unselectable::NotAssigned)?;
    Ok(Some((name, identity.clone(), value.to_owned())))
}

fn field<'a>(identity: &'a Identity, selector: &str) -> &'a str {
    match selector {
        "client_id" => &identity.client_id,
        "object_id" => &identity.object_id,
        _ => &identity.resource_id,
    }
}

/// Checks what every token request must have, and gives its resource.
fn check(ask: &Ask) -> Result<&str, Box<Answer>> {
    check_metadata(ask)?;
    check_version(ask, &VERSIONS)?;
    ask.parameter("resource").ok_or_else(|| {
        Box::new(Answer::error(
            400,
            "invalid_request",
            "Required query variable 'resource' is missing",
        ))
    })
}

/// Checks what every request for instance metadata must have.
pub(crate) fn check_instance(ask: &Ask) -> Result<(), Box<Answer>> {
    check_metadata(ask)?;
    let [newest, second, third, fourth] = VERSIONS;
    check_version(ask, &[newest, second, third, fourth, INSTANCE_VERSION])
}

/// HIMDS's own body is not known; this is that of IMDS.
fn check_metadata(ask: &Ask) -> Result<(), Box<Answer>> {
    if ask.says_metadata() {
        return Ok(());
    }
    Err(Box::new(Answer::error(
        400,
        "invalid_request",
        "Required metadata header not specified",
    )))
}

fn check_version(ask: &Ask, known: &[&str]) -> Result<(), Box<Answer>> {
    if ask
        .parameter("api-version")
        .is_some_and(|version| known.contains(&version))
    {
        return Ok(());
    }
    let description = format!(
        "The api-version not specified. Supported are {}",
        VERSIONS.join(" ")
    );
    Err(Box::new(Answer::error(
        400,
        "invalid_request",
        &description,
    )))
}
