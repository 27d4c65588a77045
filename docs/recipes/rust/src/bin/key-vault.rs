//! Prints the value of a secret.

use arcbroker_recipes::{Result, agent, arguments, bearer};

fn main() -> Result<()> {
    let [vault, name] = arguments("key-vault VAULT NAME")?;
    let mut answer = agent()
        .get(format!("https://{vault}.vault.azure.net/secrets/{name}"))
        .query("api-version", "7.4")
        .header("Authorization", bearer("keyvault")?)
        .call()?;
    let secret: serde_json::Value = answer.body_mut().read_json()?;
    let value = secret["value"].as_str().ok_or("the secret has no value")?;
    println!("{value}");
    Ok(())
}
