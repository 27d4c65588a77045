//! The key that signs all tokens of this process, and its public half as a JWKS.

use std::{sync::OnceLock, thread};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rsa::{
    Pkcs1v15Sign, PrivateKey,
    sha2::{Digest as _, Sha256},
    traits::PublicKeyParts as _,
};
use serde::Serialize;

const BITS: usize = 2048;

/// An RSA key that signs as RS256.
pub(crate) struct Signer {
    key: PrivateKey,
    id: String,
}

static SIGNER: OnceLock<Signer> = OnceLock::new();

/// Starts to make the key in the background: it takes longer than a start may take.
pub(crate) fn warm_up() {
    let thread = thread::Builder::new().name("signing-key".to_owned());
    // Without a thread the first token makes the key.
    drop(thread.spawn(make));
}

/// The key, as soon as it is there.
pub(crate) async fn signer() -> &'static Signer {
    match SIGNER.get() {
        Some(signer) => signer,
        None => tokio::task::spawn_blocking(make)
            .await
            .unwrap_or_else(|_| make()),
    }
}

fn make() -> &'static Signer {
    SIGNER.get_or_init(|| {
        #[expect(
            clippy::expect_used,
            reason = "2048 bits are allowed, and a process without randomness cannot go on"
        )]
        let key = PrivateKey::new(&mut rand::rng(), BITS).expect("the system gives random numbers");
        // Entra uses the SHA-1 of a certificate; any 20 bytes that depend on the key look the same.
        let thumbprint = Sha256::digest(key.n_bytes());
        let id = URL_SAFE_NO_PAD.encode(thumbprint.get(..20).unwrap_or_default());
        Signer { key, id }
    })
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    x5t: &'a str,
    kid: &'a str,
}

impl Signer {
    /// A JWT of these claims.
    pub(crate) fn jwt(&self, claims: &impl Serialize) -> Result<String, SignError> {
        let header = Header {
            typ: "JWT",
            alg: "RS256",
            x5t: &self.id,
            kid: &self.id,
        };
        let mut jwt = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut jwt);
        let signature = self.key.sign(
            Pkcs1v15Sign::new::<Sha256>(),
            &Sha256::digest(jwt.as_bytes()),
        )?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [{
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.id,
            "x5t": self.id,
            "n": URL_SAFE_NO_PAD.encode(self.key.n_bytes()),
            "e": URL_SAFE_NO_PAD.encode(self.key.e_bytes()),
        }]})
    }
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("the claims have no JSON form: {0}")]
    Claims(#[from] serde_json::Error),
    #[error("the signing key failed: {0}")]
    Key(#[from] rsa::Error),
}
