//! `arcbroker policy`: a module for each of its commands.

mod diff;
mod promote;
mod replay;
mod test;

use std::path::Path;

use arcbroker_client::Client;

use crate::{
    args::policy::PolicyCommand,
    exit::{Exit, Failure},
    settings::Settings,
};

pub(super) async fn run(
    admin: &Client,
    config: Option<&Path>,
    command: &PolicyCommand,
) -> Result<Exit, Failure> {
    let settings = Settings::read(config);
    match command {
        PolicyCommand::Test(args) => test::run(&settings?, args),
        PolicyCommand::Diff(args) => diff::run(&settings.map_err(Failure::Trouble)?, args),
        PolicyCommand::Replay(args) => {
            replay::run(admin, &settings.map_err(Failure::Trouble)?, args).await
        }
        PolicyCommand::Promote(args) => promote::run(admin, &settings?, args).await,
    }
}
