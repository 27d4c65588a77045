//! The 200 answer with a token.

use serde_json::Value;

use crate::{
    fault::Draw,
    fault_table::Name,
    hostile_body::{self, Fields},
    journal::Kind,
    keys::{self, SignError, Signer},
    options::Identity,
    route::Site,
    token::{self, Reuse, SKEW, Token, Wanted},
    wire::Answer,
};

/// What a caller asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) resource: String,
    pub(crate) identity: Identity,
    /// The fields by which the answer says whose token it is.
    pub(crate) echo: Vec<(&'static str, String)>,
    pub(crate) bypass_cache: bool,
}

/// Answers with a token from the cache, or with a new one.
pub(crate) async fn token(site: &Site, mut order: Order, draw: &mut Draw) -> Answer {
    let signer = keys::signer().await;
    if let Some(strike) = draw.take(Name::WrongResource) {
        order.resource = strike.text_or(ELSEWHERE);
    }
    let now = site.options.clock.seconds();
    match find(site, signer, &order, now, draw) {
        Ok(token) => {
            let fields = fields(site, &order, &token, now, draw);
            let reply = hostile_body::reply(fields, draw);
            Answer::new(Kind::Token, reply)
        }
        Err(error) => Answer::error(
            500,
            "server_error",
            &format!("no token could be signed: {error}"),
        ),
    }
}

const ELSEWHERE: &str = "https://elsewhere.example/";
const OTHER_TENANT: &str = "e0a7b3c2-91d4-4f56-8b20-d3c5f7a91e84";
const OTHER_ID: &str = "7d2f9b6e-4c81-4a35-9e07-b5d0c8f3a162";

fn find(
    site: &Site,
    signer: &Signer,
    order: &Order,
    now: u64,
    draw: &mut Draw,
) -> Result<Token, SignError> {
    let plain = Wanted {
        identity: order.identity.clone(),
        tenant_id: site.options.machine.tenant_id.clone(),
        audience: order.resource.clone(),
        issued: now,
        expires_on: now + site.options.lifetime.as_secs(),
    };
    if let Some(odd) = odd_token(&plain, draw) {
        return token::mint(signer, &odd, &site.options);
    }
    let reuse = if draw.hits(Name::SameToken) {
        Reuse::Always
    } else if draw.hits(Name::FreshToken) || order.bypass_cache {
        Reuse::Never
    } else {
        // A token that lives for less than the margin would never be reused.
        let margin = site
            .options
            .renew_at_remaining
            .min(site.options.lifetime / 2);
        Reuse::Remaining(margin.as_secs())
    };
    site.tokens
        .token(&plain, reuse, || token::mint(signer, &plain, &site.options))
}

/// A token that is never cached, because it is not what was asked for.
fn odd_token(plain: &Wanted, draw: &mut Draw) -> Option<Wanted> {
    let mut odd = plain.clone();
    let before = draw.struck.len();
    if draw.hits(Name::Expired) {
        odd.issued = plain.issued.saturating_sub(7200);
        odd.expires_on = plain.issued.saturating_sub(3600);
    } else if let Some(strike) = draw.take(Name::ShortLifetime) {
        odd.expires_on = plain.issued + strike.number();
    }
    if draw.hits(Name::OtherTenant) {
        OTHER_TENANT.clone_into(&mut odd.tenant_id);
    }
    if draw.hits(Name::OtherIdentity) {
        let resource_id = plain.identity.resource_id.clone() + "-other";
        odd.identity = Identity {
            client_id: OTHER_ID.to_owned(),
            object_id: OTHER_ID.to_owned(),
            resource_id,
        };
    }
    if let Some(strike) = draw.take(Name::WrongAudience) {
        odd.audience = strike.text_or(ELSEWHERE);
    }
    (draw.struck.len() > before).then_some(odd)
}

fn fields(site: &Site, order: &Order, token: &Token, now: u64, draw: &mut Draw) -> Fields {
    let agent = site.options.agent_version;
    let himds = !site.options.imds;
    let not_before = if himds && agent.blanks_not_before() {
        String::new()
    } else {
        token.issued.saturating_sub(SKEW).to_string()
    };
    let resource = if himds && agent.blanks_resource() {
        ""
    } else {
        order.resource.as_str()
    };
    let mut fields = Fields::default();
    fields.push("access_token", token.jwt.as_str());
    fields.push("refresh_token", "");
    fields.push(
        "expires_in",
        token.expires_on.saturating_sub(now).to_string(),
    );
    fields.push("expires_on", token.expires_on.to_string());
    fields.push("not_before", not_before);
    fields.push("resource", resource);
    fields.push("token_type", "Bearer");
    if site.options.imds {
        fields.push(
            "ext_expires_in",
            (token.expires_on - token.issued)
                .saturating_sub(1)
                .to_string(),
        );
    }
    echo(&mut fields, order, draw);
    fields
}

fn echo(fields: &mut Fields, order: &Order, draw: &mut Draw) {
    if order.echo.is_empty() || draw.hits(Name::NoEcho) {
        return;
    }
    let other = draw
        .take(Name::OtherEcho)
        .map(|strike| strike.text_or(OTHER_ID));
    for (name, value) in &order.echo {
        fields.push(
            name,
            Value::String(other.clone().unwrap_or_else(|| value.clone())),
        );
    }
}
