// Asks the credential named as its argument for a token for each resource that it reads.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

func newCredential(name string) (azcore.TokenCredential, error) {
	if name == "default" {
		return azidentity.NewDefaultAzureCredential(nil)
	}
	options := &azidentity.ManagedIdentityCredentialOptions{}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		options.ID = azidentity.ClientID(id)
	}
	return azidentity.NewManagedIdentityCredential(options)
}

func main() {
	log.SetFlags(0)
	credential, err := newCredential(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	resources := bufio.NewScanner(os.Stdin)
	for resources.Scan() {
		scopes := []string{resources.Text() + "/.default"}
		token, err := credential.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: scopes})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.6x %d\n", sha256.Sum256([]byte(token.Token)), token.ExpiresOn.Unix())
	}
}
