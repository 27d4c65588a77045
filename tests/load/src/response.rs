//! Reading one HTTP/1.1 response as far as a load generator must: its status, and where it ends.

use thiserror::Error;

/// Room for one head. Longer heads are an error: both servers that this was written for send a few hundred bytes.
const HEAD_CAPACITY: usize = 16 * 1024;

#[derive(Debug, Error, Eq, PartialEq)]
pub(crate) enum BadResponse {
    #[error("the response's head is longer than {HEAD_CAPACITY} bytes")]
    HeadTooLong,
    #[error("the response does not begin with an HTTP/1.1 status line")]
    StatusLine,
    #[error("the response has no usable Content-Length, so its end cannot be told")]
    Length,
    #[error("the server sent more than the response's Content-Length")]
    Surplus,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the server leaves the connection open.
    pub(crate) keep_alive: bool,
    length: usize,
    body_length: usize,
}

/// One response under way. Bytes of the body are counted, not kept.
#[derive(Debug)]
pub(crate) struct Response {
    buffer: Box<[u8]>,
    filled: usize,
    head: Option<Head>,
    body_received: usize,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; HEAD_CAPACITY].into(),
            filled: 0,
            head: None,
            body_received: 0,
        }
    }

    /// Forgets the response, and keeps the buffer for the next one.
    pub(crate) fn restart(&mut self) {
        self.filled = 0;
        self.head = None;
        self.body_received = 0;
    }

    /// Where the next bytes from the server go. Never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes the first `count` bytes of [`space`](Self::space) as received. Gives the head once all has arrived.
    pub(crate) fn received(&mut self, count: usize) -> Result<Option<Head>, BadResponse> {
        let head = match self.head {
            Some(head) => {
                self.body_received += count;
                head
            }
            None => match self.received_in_head(count)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        match self.body_received {
            received if received > head.body_length => Err(BadResponse::Surplus),
            received if received == head.body_length => Ok(Some(head)),
            _ => Ok(None),
        }
    }

    fn received_in_head(&mut self, count: usize) -> Result<Option<Head>, BadResponse> {
        self.filled += count;
        let Some(head) = parse_head(self.buffer.get(..self.filled).unwrap_or_default())? else {
            return if self.filled < self.buffer.len() {
                Ok(None)
            } else {
                Err(BadResponse::HeadTooLong)
            };
        };
        self.body_received = self.filled - head.length;
        self.filled = 0;
        self.head = Some(head);
        Ok(Some(head))
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, BadResponse> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = bytes
        .get(..end)
        .and_then(|head| str::from_utf8(head).ok())
        .ok_or(BadResponse::StatusLine)?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(parse_status)
        .ok_or(BadResponse::StatusLine)?;
    let mut body_length = None;
    let mut keep_alive = true;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            keep_alive = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let body_length = body_length.ok_or(BadResponse::Length)?;
    Ok(Some(Head {
        status,
        keep_alive,
        length: end + 4,
        body_length,
    }))
}

fn parse_status(line: &str) -> Option<u16> {
    let digits = line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    digits.parse().ok().filter(|_| digits.len() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(response: &mut Response, bytes: &[u8]) -> Result<Option<Head>, BadResponse> {
        response.space()[..bytes.len()].copy_from_slice(bytes);
        response.received(bytes.len())
    }

    #[test]
    fn a_response_is_complete_with_its_last_byte_however_it_is_cut() {
        let whole = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 1..whole.len() {
            let mut response = Response::new();
            assert_eq!(feed(&mut response, &whole[..cut]), Ok(None), "cut at {cut}");
            let head = feed(&mut response, &whole[cut..]).unwrap().unwrap();
            assert_eq!((head.status, head.keep_alive), (403, true));
        }
    }

    #[test]
    fn a_body_may_be_longer_than_the_buffer() {
        let mut response = Response::new();
        let length = 3 * HEAD_CAPACITY;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(feed(&mut response, head.as_bytes()), Ok(None));
        assert_eq!(response.space().len(), HEAD_CAPACITY);
        assert_eq!(feed(&mut response, &[b'x'; HEAD_CAPACITY]), Ok(None));
        assert_eq!(feed(&mut response, &[b'x'; HEAD_CAPACITY]), Ok(None));
        assert_eq!(
            feed(&mut response, &[b'x'; HEAD_CAPACITY])
                .unwrap()
                .unwrap()
                .status,
            200
        );
    }

    #[test]
    fn a_restarted_response_reads_the_next_one() {
        let mut response = Response::new();
        assert_eq!(
            feed(
                &mut response,
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
            ),
            Ok(None)
        );
        response.restart();
        let head = feed(
            &mut response,
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(head.status, 503);
    }

    #[test]
    fn the_server_says_whether_the_connection_stays_open() {
        let mut response = Response::new();
        let head = feed(
            &mut response,
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
        );
        assert!(!head.unwrap().unwrap().keep_alive);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let overlong = [b'x'; HEAD_CAPACITY];
        let cases: [(&[u8], BadResponse); 6] = [
            (b"hello\r\n\r\n", BadResponse::StatusLine),
            (
                b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
                BadResponse::StatusLine,
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n", BadResponse::Length),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                BadResponse::Length,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
                BadResponse::Surplus,
            ),
            (&overlong, BadResponse::HeadTooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(feed(&mut Response::new(), bytes), Err(expected));
        }
    }
}
