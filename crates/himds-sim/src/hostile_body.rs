//! What faults make of the body of an answer with a token.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

use crate::{fault::Draw, fault_table::Name, wire::Reply};

/// The fields of an answer, in the order in which they are written.
#[derive(Default)]
pub(crate) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    pub(crate) fn push(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        if let Some((_, old)) = self.0.iter_mut().find(|(key, _)| *key == name) {
            *old = value.into();
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| *key != name);
    }

    /// Every field twice: first with a wrong value, then with its own.
    fn doubled(&self) -> Self {
        let double = |(name, value): &(&'static str, Value)| {
            [(*name, Value::from("first")), (*name, value.clone())]
        };
        Self(self.0.iter().flat_map(double).collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The answer with these fields, as the faults want it.
pub(crate) fn reply(mut fields: Fields, draw: &mut Draw) -> Reply {
    expiry(&mut fields, draw);
    access_token(&mut fields, draw);
    if let Some(strike) = draw.take(Name::NotBearer) {
        fields.set("token_type", strike.text_or("PoP"));
    }
    body(fields, draw)
}

fn expiry(fields: &mut Fields, draw: &mut Draw) {
    let names = [
        Name::NoExpiry,
        Name::OnlyExpiresIn,
        Name::OnlyExpiresOn,
        Name::ExpiresOn,
        Name::ExpiresOnNumber,
        Name::ExpiresOnFloat,
    ];
    let Some((name, strike)) = draw.first(&names) else {
        return;
    };
    match name {
        Name::OnlyExpiresIn => fields.remove("expires_on"),
        Name::OnlyExpiresOn => fields.remove("expires_in"),
        Name::ExpiresOn => {
            fields.set("expires_on", strike.text_or(""));
            fields.remove("expires_in");
        }
        Name::ExpiresOnNumber => renumber(fields, Value::from),
        Name::ExpiresOnFloat => renumber(fields, |seconds| {
            // A fraction that a double holds exactly, so that it is written as it is here.
            serde_json::from_str(&format!("{seconds}.5")).unwrap_or_default()
        }),
        _ => {
            fields.remove("expires_on");
            fields.remove("expires_in");
        }
    }
}

fn renumber(fields: &mut Fields, number: impl Fn(u64) -> Value) {
    for name in ["expires_on", "expires_in"] {
        let value = number(fields.text(name).parse().unwrap_or_default());
        fields.set(name, value);
    }
}

fn access_token(fields: &mut Fields, draw: &mut Draw) {
    let names = [
        Name::EmptyAccessToken,
        Name::NoAccessToken,
        Name::NonAsciiAccessToken,
        Name::CrlfAccessToken,
        Name::HugeAccessToken,
    ];
    let Some((name, strike)) = draw.first(&names) else {
        return;
    };
    let token = fields.text("access_token").to_owned();
    match name {
        Name::NoAccessToken => fields.remove("access_token"),
        Name::NonAsciiAccessToken => fields.set("access_token", format!("{token}é\u{1f511}")),
        Name::CrlfAccessToken => fields.set("access_token", format!("{token}\r\nX-Injected: yes")),
        Name::HugeAccessToken => {
            fields.set("access_token", "x".repeat(strike.size().min(256 << 20)));
        }
        _ => fields.set("access_token", ""),
    }
}

const OK: u16 = 200;
const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "<html><body>Sign in to the network</body></html>";

fn body(mut fields: Fields, draw: &mut Draw) -> Reply {
    let names = [
        Name::BodyGarbage,
        Name::BodyTruncated,
        Name::BodyHuge,
        Name::BodyHtml,
        Name::BodyEmpty,
        Name::BodyArray,
        Name::BodyTrailing,
        Name::BodyDuplicateKeys,
        Name::BodyNan,
        Name::BodyGzip,
    ];
    let Some((name, strike)) = draw.first(&names) else {
        return Reply::json(OK, &fields);
    };
    let mut reply = Reply::json(OK, &fields);
    match name {
        Name::BodyGarbage => reply.body = (0..=255).rev().collect(),
        Name::BodyTruncated => reply.body.truncate(reply.body.len() / 2),
        Name::BodyHuge => fill_up(&mut reply.body, strike.size().min(256 << 20)),
        Name::BodyHtml => return Reply::new(OK, "text/html", HTML),
        Name::BodyArray => reply = Reply::json(OK, &[&fields]),
        Name::BodyTrailing => reply.body.extend_from_slice(b"\n<!-- end -->"),
        Name::BodyDuplicateKeys => reply = Reply::json(OK, &fields.doubled()),
        Name::BodyNan => {
            fields.remove("expires_on");
            reply = Reply::json(OK, &fields);
            reply.body.pop();
            reply.body.extend_from_slice(b",\"expires_on\":NaN}");
        }
        Name::BodyGzip => reply = reply.with_header("Content-Encoding", "gzip"),
        _ => return Reply::new(OK, JSON, ""),
    }
    reply
}

/// Puts spaces inside of the braces, so that the whole of it is one JSON value.
fn fill_up(object: &mut Vec<u8>, size: usize) {
    object.pop();
    object.resize(size.saturating_sub(1).max(object.len()), b' ');
    object.push(b'}');
}
