//! Tokens with the claims of a real one, and the cache that HIMDS and IMDS answer from.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    keys::{SignError, Signer},
    options::{Identity, Options},
};

/// Seconds that a token is good before it was issued: both `not_before` and `nbf`.
pub(crate) const SKEW: u64 = 300;

/// What a token is to be for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) identity: Identity,
    pub(crate) tenant_id: String,
    /// The `aud` claim: the resource, byte for byte.
    pub(crate) audience: String,
    /// When it was issued, in seconds since the Unix epoch.
    pub(crate) issued: u64,
    pub(crate) expires_on: u64,
}

/// A token, and the times that the answer gives beside it.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) jwt: String,
    pub(crate) issued: u64,
    pub(crate) expires_on: u64,
}

/// Signs a new token. It differs from all others, even for the same times.
pub(crate) fn mint(
    signer: &Signer,
    wanted: &Wanted,
    options: &Options,
) -> Result<Token, SignError> {
    let machine = options.machine.resource_id(options.imds);
    let user_assigned = wanted.identity.client_id != options.machine.client_id;
    let claims = Claims {
        aud: &wanted.audience,
        iss: &format!("https://sts.windows.net/{}/", wanted.tenant_id),
        iat: wanted.issued,
        nbf: wanted.issued.saturating_sub(SKEW),
        exp: wanted.expires_on,
        aio: &opaque(27),
        appid: &wanted.identity.client_id,
        appidacr: "2",
        idp: &format!("https://sts.windows.net/{}/", wanted.tenant_id),
        idtyp: "app",
        oid: &wanted.identity.object_id,
        rh: &format!("1.{}.", opaque(36)),
        sub: &wanted.identity.object_id,
        tid: &wanted.tenant_id,
        uti: &opaque(16),
        ver: "1.0",
        xms_az_rid: user_assigned.then_some(machine.as_str()),
        xms_mirid: &wanted.identity.resource_id,
    };
    Ok(Token {
        jwt: signer.jwt(&claims)?,
        issued: wanted.issued,
        expires_on: wanted.expires_on,
    })
}

/// In the order of a real token.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    aio: &'a str,
    appid: &'a str,
    appidacr: &'a str,
    idp: &'a str,
    idtyp: &'a str,
    oid: &'a str,
    rh: &'a str,
    sub: &'a str,
    tid: &'a str,
    uti: &'a str,
    ver: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    xms_az_rid: Option<&'a str>,
    xms_mirid: &'a str,
}

fn opaque(bytes: usize) -> String {
    let random: Vec<u8> = rand::random_iter().take(bytes).collect();
    URL_SAFE_NO_PAD.encode(random)
}

/// The tokens that were issued, by identity and resource.
#[derive(Default)]
pub(crate) struct TokenCache(Mutex<HashMap<(String, String), Token>>);

/// Which token of the cache will do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reuse {
    /// One that still has at least this many seconds to live.
    Remaining(u64),
    /// None: a new one is made, and kept.
    Never,
    /// Any.
    Always,
}

impl TokenCache {
    /// A token from the cache if one will do, else a new one, which is kept.
    ///
    /// The lock is held while a token is signed: equal requests at the same time get equal tokens.
    pub(crate) fn token(
        &self,
        wanted: &Wanted,
        reuse: Reuse,
        mint: impl FnOnce() -> Result<Token, SignError>,
    ) -> Result<Token, SignError> {
        let mut tokens = self.lock();
        let key = (wanted.identity.client_id.clone(), wanted.audience.clone());
        let now = wanted.issued;
        let will_do = |token: &&Token| match reuse {
            Reuse::Remaining(least) => token.expires_on > now && token.expires_on - now >= least,
            Reuse::Never => false,
            Reuse::Always => true,
        };
        if let Some(token) = tokens.get(&key).filter(will_do) {
            return Ok(token.clone());
        }
        let token = mint()?;
        tokens.retain(|_, token| token.expires_on > now);
        tokens.insert(key, token.clone());
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
