//! Asks a `ManagedIdentityCredential` for a token for each resource that it reads.

use std::{env, error::Error, io};

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use sha2::{Digest, Sha256};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let credential = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
        user_assigned_id: env::var("AZURE_CLIENT_ID")
            .ok()
            .map(UserAssignedId::ClientId),
        ..Default::default()
    }))?;
    for resource in io::stdin().lines() {
        let scope = format!("{}/.default", resource?);
        let token = credential.get_token(&[&scope], None).await?;
        let digest = Sha256::digest(token.token.secret());
        let digits: String = digest[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        println!("{digits} {}", token.expires_on.unix_timestamp());
    }
    Ok(())
}
