//! Prints what the Resource Manager knows of an Arc server.

use arcbroker_recipes::{Result, agent, arguments, bearer};

fn main() -> Result<()> {
    let [machine] = arguments("resource-manager RESOURCE_ID")?;
    let mut answer = agent()
        .get(format!("https://management.azure.com{machine}"))
        .query("api-version", "2024-07-10")
        .header("Authorization", bearer("arm")?)
        .call()?;
    println!("{}", answer.body_mut().read_to_string()?);
    Ok(())
}
