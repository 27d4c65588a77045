// An access token for the resource that is given, with Node's own modules alone.
import http from "node:http";

const socketPath = process.env.ARCBROKER_SOCKET || "/run/arcbroker/token.sock";

/** Ask each time a token is needed: the broker caches and refreshes. */
export async function token(resource) {
  const query = new URLSearchParams({ "api-version": "2018-02-01", resource });
  const path = `/metadata/identity/oauth2/token?${query}`;
  const response = await new Promise((resolve, reject) => {
    const options = { socketPath, path, headers: { Metadata: "true" }, timeout: 25_000 };
    const request = http.get(options, resolve).on("error", reject);
    request.on("timeout", () => request.destroy(new Error(`${socketPath} does not answer`)));
  });
  const answer = JSON.parse(Buffer.concat(await response.toArray()));
  if (response.statusCode !== 200) throw new Error(answer.error_description);
  return answer.access_token;
}

try {
  console.log(await token(process.argv[2]));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
