terraform {
  required_version = ">= 1.11.4"

  backend "azurerm" {
    storage_account_name = "arcbrokerstate"
    container_name       = "state"
    key                  = "terraform.tfstate"
    use_azuread_auth     = true
  }
}
