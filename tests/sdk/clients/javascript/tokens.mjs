// Asks the credential named as its argument for a token for each resource that it reads.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";

const credentials = {
  managed: () => new ManagedIdentityCredential({ clientId: process.env.AZURE_CLIENT_ID }),
  default: () => new DefaultAzureCredential(),
};

const credential = credentials[process.argv[2]]();
for await (const resource of createInterface({ input: process.stdin })) {
  const { token, expiresOnTimestamp } = await credential.getToken(`${resource}/.default`);
  const digest = createHash("sha256").update(token).digest("hex").slice(0, 12);
  console.log(`${digest} ${Math.floor(expiresOnTimestamp / 1000)}`);
}
