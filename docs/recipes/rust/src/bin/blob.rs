//! Stores a file as a blob, and prints what the blob is then.

use arcbroker_recipes::{Result, agent, arguments, bearer};

const VERSION: &str = "2023-11-03";

fn main() -> Result<()> {
    let [account, container, file] = arguments("blob ACCOUNT CONTAINER FILE")?;
    let url = format!("https://{account}.blob.core.windows.net/{container}/{file}");
    let agent = agent();
    agent
        .put(&url)
        .header("Authorization", bearer("storage")?)
        .header("x-ms-version", VERSION)
        .header("x-ms-blob-type", "BlockBlob")
        .send(std::fs::read(&file)?)?;
    let mut answer = agent
        .get(&url)
        .header("Authorization", bearer("storage")?)
        .header("x-ms-version", VERSION)
        .call()?;
    print!("{}", answer.body_mut().read_to_string()?);
    Ok(())
}
