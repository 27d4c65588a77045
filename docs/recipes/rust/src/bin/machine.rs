//! Says what machine this is.

use arcbroker_client::blocking::Client;
use arcbroker_recipes::Result;

fn main() -> Result<()> {
    let instance = Client::from_env()?.instance()?;
    let compute = &instance["compute"];
    println!("{} in {}", compute["name"], compute["location"]);
    Ok(())
}
