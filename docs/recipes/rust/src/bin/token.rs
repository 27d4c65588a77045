//! Gets a token, and says how long it is good.

use arcbroker_recipes::{Result, arguments, token};

fn main() -> Result<()> {
    let [resource] = arguments("token RESOURCE")?;
    let token = token(&resource)?;
    println!("{} for {} s", token.resource, token.expires_in.as_secs());
    Ok(())
}
