//! Answers as they go over the wire.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arcbroker_client::wire::{ErrorAnswer, SCHEMA};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::record::RequestId;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A body of up to three parts that are shared and never copied.
#[derive(Debug)]
pub struct Body(std::array::IntoIter<Bytes, 3>);

/// A refusal that is about to be told.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The reason as a word.
    pub error: &'static str,
    /// What happened and what to do next.
    pub description: String,
    /// For a 429 or 503: when to come back.
    pub retry_after: Option<Duration>,
    /// Versions to use instead of the one that was asked for.
    pub newest_versions: &'static [&'static str],
    /// For a 405: what is served.
    pub allow: Option<&'static str>,
    /// Whether the connection is of no use any more.
    pub close: bool,
}

impl Refusal {
    /// A refusal that is told as it is.
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status,
            error,
            description: description.into(),
            retry_after: None,
            newest_versions: &[],
            allow: None,
            close: false,
        }
    }

    /// What is told.
    pub(crate) fn answer(&self, id: Option<RequestId>) -> ErrorAnswer {
        ErrorAnswer {
            error: self.error.to_owned(),
            message: self.description.clone(),
            error_description: self.description.clone(),
            status_code: self.status.as_u16(),
            request_id: id.map(|id| id.to_string()),
            newest_versions: self
                .newest_versions
                .iter()
                .map(ToString::to_string)
                .collect(),
            schema: SCHEMA,
        }
    }

    /// The answer.
    pub fn response(self, id: Option<RequestId>) -> Response<Body> {
        let mut response = json(&self.answer(id));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            // A client that reads 0 comes back at once.
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after).max(1)));
        }
        if let Some(method) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(method));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Rounded up: what is about to happen is not over.
pub(crate) fn whole_seconds(left: Duration) -> u64 {
    left.as_secs()
        .saturating_add(u64::from(left.subsec_nanos() > 0))
}

/// A 200 with a document.
pub fn json(document: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(text) => raw_json([Bytes::from(text), Bytes::new(), Bytes::new()]),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON; this is a defect of arcbroker");
            let mut response = raw_json(Default::default());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// A 200 with a document that is JSON already.
pub fn raw_json(parts: [Bytes; 3]) -> Response<Body> {
    let mut response = Response::new(Body(parts.into_iter()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(
            self.0
                .find(|part| !part.is_empty())
                .map(|part| Ok(Frame::data(part))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_slice().iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_slice().iter().map(|part| part.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn parts_are_told_in_their_order_and_empty_ones_are_left_out() {
        let parts = ["a", "", "bc"].map(|part| Bytes::from_static(part.as_bytes()));
        let response = raw_json(parts);
        assert_eq!(
            hyper::body::Body::size_hint(response.body()).exact(),
            Some(3)
        );
        assert_eq!(text(response).await, "abc");
    }

    #[tokio::test]
    async fn a_refusal_says_it_twice_and_when_to_come_back() {
        let mut refusal = Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            "later",
        );
        refusal.retry_after = Some(Duration::from_millis(1200));
        let response = refusal.response(None);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(
            text(response).await,
            r#"{"error":"service_unavailable","error_description":"later","statusCode":503,"message":"later","schema":1}"#
        );
    }
}
