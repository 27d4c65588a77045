//! `arcbroker flush` and `arcbroker refresh`

use arcbroker_client::Client;

use crate::{
    exit::{Exit, Failure},
    output::{Page, counted},
};

pub(super) async fn flush(client: &Client, resource: Option<&str>) -> Result<Exit, Failure> {
    let answer = client.flush(resource).await.map_err(Failure::Command)?;
    print(&format!(
        "{} dropped",
        counted(answer.tokens as u64, "token")
    ))
}

pub(super) async fn refresh(client: &Client, resource: Option<&str>) -> Result<Exit, Failure> {
    let answer = client.refresh(resource).await.map_err(Failure::Command)?;
    print(&format!(
        "{} asked for anew",
        counted(answer.tokens as u64, "token")
    ))
}

fn print(line: &str) -> Result<Exit, Failure> {
    let mut page = Page::new();
    page.line(line);
    page.print()?;
    Ok(Exit::OK)
}
