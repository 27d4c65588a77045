//! An HTTP answer, read without a library so that nothing about it is hidden.

use serde_json::Value;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; 0 when the connection was closed without an answer.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Splits what was read from a connection into its answers, by their lengths.
    pub fn parse_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut answers = Vec::new();
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end]).unwrap();
            let mut lines = head.split("\r\n");
            let status = lines
                .next()
                .unwrap()
                .split(' ')
                .nth(1)
                .unwrap()
                .parse()
                .unwrap();
            let headers: Vec<_> = lines
                .map(|line| line.split_once(':').unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let mut answer = Self {
                status,
                headers,
                body: String::new(),
            };
            let length = answer
                .header("content-length")
                .map_or(0, |length| length.parse().unwrap());
            let rest = &bytes[end + 4..];
            answer.body = String::from_utf8(rest[..length.min(rest.len())].to_vec()).unwrap();
            bytes = &rest[length.min(rest.len())..];
            answers.push(answer);
        }
        answers
    }

    /// The first answer, or one with status 0 where there is none.
    pub fn parse(bytes: &[u8]) -> Self {
        let none = Self {
            status: 0,
            headers: Vec::new(),
            body: String::new(),
        };
        Self::parse_all(bytes).into_iter().next().unwrap_or(none)
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
