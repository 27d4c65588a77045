//! What a cell expects, and whether what was seen is that.

use std::time::Duration;

use arcbroker_e2e::Answer;

/// How every token of the simulator begins.
pub const JWT: &str = "eyJ0eXAi";

/// A kind of answer, as the table names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kind {
    /// Its name in the table.
    pub name: String,
    /// The status.
    pub status: u16,
    /// The `error` of the body; empty for a token.
    pub error: String,
    /// Whether it says when to come back.
    pub retry_after: bool,
    /// Which token it has.
    pub token: Token,
}

/// Which token an answer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Token {
    /// None.
    No,
    /// One that the client has not had before.
    New,
    /// The one that the client had before.
    Old,
}

/// How long an answer takes, as the table names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wait {
    /// Its name in the table.
    pub name: String,
    /// It takes at least this long.
    pub least: Duration,
    /// It takes less than this.
    pub most: Duration,
}

/// One cell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cell {
    /// As the table writes it.
    pub text: String,
    /// What the client sees.
    pub kind: Kind,
    /// Seconds of the `Retry-After`, where the table names them.
    pub seconds: Option<u64>,
    /// How long it takes.
    pub wait: Wait,
    /// How often HIMDS may be asked for a token; where it may, it must be, at least once.
    pub asked: u64,
}

/// What a client was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// How long it took.
    pub took: Duration,
}

impl Told {
    /// The token, if there is one.
    pub fn token(&self) -> Option<String> {
        let token = || {
            self.answer.json()["access_token"]
                .as_str()
                .map(str::to_owned)
        };
        (self.answer.status == 200).then(token).flatten()
    }

    /// In few words.
    pub fn summary(&self) -> String {
        match (self.answer.status, self.answer.header("retry-after")) {
            (0, _) => "no answer".to_owned(),
            (200, _) => "200".to_owned(),
            (status, None) => format!("{status} {}", self.answer.error()),
            (status, Some(seconds)) => {
                format!("{status} {}, Retry-After {seconds}", self.answer.error())
            }
        }
    }
}

impl Cell {
    /// Whether the answer is the expected one; `old` is the token from before.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn judge(&self, told: &Told, old: Option<&str>) -> Result<(), String> {
        self.judge_answer(told, old)?;
        if (self.wait.least..self.wait.most).contains(&told.took) {
            return Ok(());
        }
        Err(format!("{} after {:?}", told.summary(), told.took))
    }

    /// The same, however long it took.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn judge_answer(&self, told: &Told, old: Option<&str>) -> Result<(), String> {
        let (kind, answer) = (&self.kind, &told.answer);
        let seen = || format!("{}: {answer:?}", told.summary());
        if answer.status != kind.status {
            return Err(seen());
        }
        if kind.token == Token::No {
            let seconds: Option<u64> = answer
                .header("retry-after")
                .map(|text| text.parse().unwrap());
            // It counts down from the moment of the failure.
            let fits = match (self.seconds, seconds) {
                (Some(expected), Some(told)) => {
                    (expected.saturating_sub(1)..=expected).contains(&told)
                }
                (None, told) => told.is_some() == kind.retry_after,
                (Some(_), None) => false,
            };
            let clean = !answer.body.contains(JWT);
            return if answer.error() == kind.error && fits && clean {
                Ok(())
            } else {
                Err(seen())
            };
        }
        let token = told
            .token()
            .filter(|token| !token.is_empty())
            .ok_or_else(seen)?;
        if (kind.token == Token::Old) == (Some(token.as_str()) == old) {
            return Ok(());
        }
        Err("another token than expected".to_owned())
    }

    /// Whether HIMDS was asked as often as it may be.
    ///
    /// # Errors
    ///
    /// How often it was.
    pub fn judge_asked(&self, asked: u64) -> Result<(), String> {
        let least = u64::from(self.asked > 0);
        if (least..=self.asked).contains(&asked) {
            return Ok(());
        }
        Err(format!("HIMDS was asked {asked} times for a token"))
    }
}
