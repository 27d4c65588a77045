//! `arcbroker reload`

use arcbroker_client::Client;

use crate::{
    exit::{Exit, Failure},
    output::{Page, counted},
    policy::Error,
};

pub(super) async fn run(client: &Client) -> Result<Exit, Failure> {
    let answer = client.reload().await.map_err(Failure::Command)?;
    if let Some(report) = answer.error {
        return Err(Error::NotReloaded { report }.into());
    }
    let mut page = Page::new();
    let rules = counted(answer.rules as u64, "rule");
    page.line(&format!("{rules} in force, hash {}", answer.hash));
    for warning in &answer.warnings {
        page.lines(warning);
    }
    page.print()?;
    Ok(Exit::OK)
}
