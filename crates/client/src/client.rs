//! The async client.

use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    AccessToken, Error, TokenRequest,
    connect::{OWNER_VARIABLE, Owner},
    token::command_target,
    transport::Transport,
    wire::{
        API_VERSION, DEFAULT_ADMIN_SOCKET, DEFAULT_TOKEN_SOCKET, EndpointAnswer, HealthAnswer,
        Lifetime, ReloadAnswer, SCHEMA, StatusAnswer, TokenAnswer, TokensAnswer, WhoamiAnswer,
        path,
    },
};

/// The environment variable that names the token socket.
pub const SOCKET_VARIABLE: &str = "ARCBROKER_SOCKET";

/// The environment variable that names the admin socket.
pub const ADMIN_SOCKET_VARIABLE: &str = "ARCBROKER_ADMIN_SOCKET";

/// How long a call may take unless told otherwise; the broker's own deadline is 20 s.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(25);

/// A client of one socket, for async code on tokio.
///
/// Clones share their connections. Nothing is opened before the first call.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) transport: Transport,
}

impl Client {
    /// A client of the socket at `path`, whatever the environment says.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            transport: Transport::new(path.as_ref().into(), None, DEFAULT_DEADLINE),
        }
    }

    /// A client of the token socket that [`SOCKET_VARIABLE`] names, else of the usual one.
    ///
    /// Fails only with [`Error::UnknownOwner`], when [`OWNER_VARIABLE`] names nobody.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(SOCKET_VARIABLE, DEFAULT_TOKEN_SOCKET, |name| {
            env::var_os(name)
        })
    }

    /// A client of the admin socket that [`ADMIN_SOCKET_VARIABLE`] names, else of the usual one.
    pub fn admin_from_env() -> Result<Self, Error> {
        Self::from_variables(ADMIN_SOCKET_VARIABLE, DEFAULT_ADMIN_SOCKET, |name| {
            env::var_os(name)
        })
    }

    /// Believe a server that runs as this user, too.
    #[must_use]
    pub fn with_owner(self, owner: impl Into<Owner>) -> Self {
        Self {
            transport: self.transport.with_owner(owner.into()),
        }
    }

    /// Let a whole call, connecting included, take this long.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self {
            transport: self.transport.with_deadline(deadline),
        }
    }

    /// An access token, good for at least a minute by the broker's promise.
    ///
    /// A resource alone, as `client.token("keyvault")`, is asked for as the broker's default identity.
    pub async fn token(&self, request: impl Into<TokenRequest>) -> Result<AccessToken, Error> {
        let target = request.into().target()?;
        self.transport.get::<TokenAnswer>(&target).await?.try_into()
    }

    /// An endpoint of its own, for a program that knows no socket: the broker serves App Service's way of asking for
    /// tokens on `listener`, which is a TCP listener on a loopback address, for as long as `lifetime` says.
    ///
    /// The listener may be closed afterwards. `arcbroker exec` is this, and the environment that makes SDKs use it.
    pub async fn endpoint(
        &self,
        listener: &TcpListener,
        lifetime: Lifetime,
    ) -> Result<EndpointAnswer, Error> {
        let answer = self.transport.endpoint(listener, lifetime).await?;
        understood(answer.schema).map(|()| answer)
    }

    /// What the machine is, as upstream says it in its instance metadata: needs no rule, and is no secret.
    pub async fn instance(&self) -> Result<serde_json::Value, Error> {
        let target = format!("{}?api-version={API_VERSION}", path::INSTANCE);
        self.transport.get(&target).await
    }

    /// How the broker sees this process, and what it may have.
    pub async fn whoami(&self) -> Result<WhoamiAnswer, Error> {
        let answer: WhoamiAnswer = self.transport.get(path::WHOAMI).await?;
        understood(answer.schema).map(|()| answer)
    }

    /// The health of the broker in one word.
    pub async fn health(&self) -> Result<HealthAnswer, Error> {
        let answer: HealthAnswer = self.transport.get(path::HEALTH).await?;
        understood(answer.schema).map(|()| answer)
    }

    /// Everything about the broker; answered on the admin socket only.
    pub async fn status(&self) -> Result<StatusAnswer, Error> {
        let answer: StatusAnswer = self.transport.get(path::STATUS).await?;
        understood(answer.schema).map(|()| answer)
    }

    /// Drops the broker's tokens for a resource, or all; answered on the admin socket only.
    ///
    /// The next request gets a new one, though HIMDS may give the one that it keeps itself.
    pub async fn flush(&self, resource: Option<&str>) -> Result<TokensAnswer, Error> {
        self.command(path::FLUSH, resource).await
    }

    /// Has the broker's tokens for a resource, or all, refreshed now; answered on the admin socket
    /// only. The old ones are served until the new ones are there.
    pub async fn refresh(&self, resource: Option<&str>) -> Result<TokensAnswer, Error> {
        self.command(path::REFRESH, resource).await
    }

    /// Has the broker load its policy again; answered on the admin socket only.
    ///
    /// Files that are refused are no error here: [`ReloadAnswer::error`] says so.
    pub async fn reload(&self) -> Result<ReloadAnswer, Error> {
        let answer: ReloadAnswer = self.transport.post(path::RELOAD).await?;
        understood(answer.schema).map(|()| answer)
    }

    async fn command(&self, path: &str, resource: Option<&str>) -> Result<TokensAnswer, Error> {
        let target = command_target(path, resource)?;
        let answer: TokensAnswer = self.transport.post(&target).await?;
        understood(answer.schema).map(|()| answer)
    }

    /// An empty variable counts as none.
    fn from_variables(
        socket: &str,
        default: &str,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let client = Self::new(set(socket).map_or_else(|| default.into(), PathBuf::from));
        match set(OWNER_VARIABLE) {
            None => Ok(client),
            Some(owner) => Ok(client.with_owner(owner.to_string_lossy().parse::<Owner>()?)),
        }
    }
}

pub(crate) fn understood(schema: u32) -> Result<(), Error> {
    if schema == SCHEMA {
        return Ok(());
    }
    Err(Error::Protocol(
        "it has another schema; broker and client are of different ages, update the older one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Client, Error> {
        Client::from_variables(SOCKET_VARIABLE, DEFAULT_TOKEN_SOCKET, |name| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.into())
        })
    }

    #[tokio::test]
    async fn the_environment_names_the_socket() {
        let path = async |variables: &[_]| match from(variables).unwrap().health().await {
            Err(Error::Unreachable { path, .. }) => path,
            other => panic!("{other:?}"),
        };
        let nowhere = "/nonexistent/token.sock";
        assert_eq!(
            path(&[(SOCKET_VARIABLE, nowhere)]).await,
            Path::new(nowhere)
        );
    }

    #[test]
    fn an_owner_that_nobody_is_called_is_an_error_and_not_ignored() {
        let error = from(&[(OWNER_VARIABLE, "no-such-user-here")]).unwrap_err();
        assert!(matches!(error, Error::UnknownOwner(_)));
        assert!(from(&[(OWNER_VARIABLE, ""), (SOCKET_VARIABLE, "")]).is_ok());
    }
}
