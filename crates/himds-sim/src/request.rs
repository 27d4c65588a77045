//! What a request says, as far as the simulator looks at it.

use hyper::{HeaderMap, Method, Uri, body::Incoming, header::AUTHORIZATION};

/// A request without its body, which no answer depends on.
pub(crate) struct Ask {
    pub(crate) connection: u64,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
}

impl Ask {
    pub(crate) fn read(connection: u64, request: &hyper::Request<Incoming>) -> Self {
        Self {
            connection,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: query_pairs(request.uri()),
            headers: request.headers().clone(),
        }
    }

    /// The first value of a query parameter; an empty value is no value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, value) = self.query.iter().find(|(key, _)| key == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn repeats_a_parameter(&self) -> bool {
        self.query.iter().enumerate().any(|(index, (name, _))| {
            self.query
                .iter()
                .skip(index + 1)
                .any(|(key, _)| key == name)
        })
    }

    /// Whether it says `Metadata: true`. Microsoft's own samples also write `True`.
    pub(crate) fn says_metadata(&self) -> bool {
        self.headers
            .get("metadata")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
    }

    pub(crate) fn authorization(&self) -> Option<&[u8]> {
        self.headers
            .get(AUTHORIZATION)
            .map(hyper::header::HeaderValue::as_bytes)
    }
}

pub(crate) fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    let query = uri.query().unwrap_or_default();
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect()
}

/// Undoes percent-encoding and `+` for a space, as Go's `net/url` does for a query; an escape that
/// is none stays as it is.
fn decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match hex_pair(bytes.clone()) {
                Some(escaped) => {
                    bytes.nth(1);
                    escaped
                }
                None => b'%',
            },
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_pair(mut bytes: std::str::Bytes<'_>) -> Option<u8> {
    let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
    u8::try_from(digit()? * 16 + digit()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_its_order_and_repetitions_are_kept() {
        let uri: Uri = "/p?resource=https%3A%2F%2Fvault.azure.net&a=b+c&a=&flag&&x=%zz%4"
            .parse()
            .unwrap();
        let pairs = query_pairs(&uri);
        let expected = [
            ("resource", "https://vault.azure.net"),
            ("a", "b c"),
            ("a", ""),
            ("flag", ""),
            ("x", "%zz%4"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
