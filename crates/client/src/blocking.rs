//! The client for code that is not async.

use std::{path::Path, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    AccessToken, Error, Owner, TokenRequest,
    wire::{HealthAnswer, ReloadAnswer, StatusAnswer, TokensAnswer, WhoamiAnswer},
};

/// A client of one socket, with a small runtime of its own that runs on the caller's thread.
///
/// May be shared between threads. In async code every call fails with [`Error::InsideRuntime`].
#[derive(Debug)]
pub struct Client {
    inner: crate::Client,
    /// Absent only while it is dropped.
    runtime: Option<Runtime>,
}

impl Client {
    /// As [`crate::Client::new`]; fails only with [`Error::Runtime`].
    pub fn new(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::around(crate::Client::new(path))
    }

    /// As [`crate::Client::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        Self::around(crate::Client::from_env()?)
    }

    /// As [`crate::Client::admin_from_env`].
    pub fn admin_from_env() -> Result<Self, Error> {
        Self::around(crate::Client::admin_from_env()?)
    }

    /// As [`crate::Client::with_owner`].
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<Owner>) -> Self {
        self.inner = self.inner.clone().with_owner(owner);
        self
    }

    /// As [`crate::Client::with_deadline`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.inner = self.inner.clone().with_deadline(deadline);
        self
    }

    /// As [`crate::Client::token`].
    pub fn token(&self, request: impl Into<TokenRequest>) -> Result<AccessToken, Error> {
        self.run(self.inner.token(request))
    }

    /// As [`crate::Client::instance`].
    pub fn instance(&self) -> Result<serde_json::Value, Error> {
        self.run(self.inner.instance())
    }

    /// As [`crate::Client::whoami`].
    pub fn whoami(&self) -> Result<WhoamiAnswer, Error> {
        self.run(self.inner.whoami())
    }

    /// As [`crate::Client::health`].
    pub fn health(&self) -> Result<HealthAnswer, Error> {
        self.run(self.inner.health())
    }

    /// As [`crate::Client::status`].
    pub fn status(&self) -> Result<StatusAnswer, Error> {
        self.run(self.inner.status())
    }

    /// As [`crate::Client::flush`].
    pub fn flush(&self, resource: Option<&str>) -> Result<TokensAnswer, Error> {
        self.run(self.inner.flush(resource))
    }

    /// As [`crate::Client::refresh`].
    pub fn refresh(&self, resource: Option<&str>) -> Result<TokensAnswer, Error> {
        self.run(self.inner.refresh(resource))
    }

    /// As [`crate::Client::reload`].
    pub fn reload(&self) -> Result<ReloadAnswer, Error> {
        self.run(self.inner.reload())
    }

    fn around(inner: crate::Client) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::Runtime)?;
        Ok(Self {
            inner,
            runtime: Some(runtime),
        })
    }

    fn run<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match &self.runtime {
            Some(runtime) if Handle::try_current().is_err() => runtime.block_on(call),
            _ => Err(Error::InsideRuntime),
        }
    }
}

impl Drop for Client {
    /// A runtime that is simply dropped in async code panics.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
