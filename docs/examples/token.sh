#!/bin/sh
# An access token for the resource that is given, with curl and jq.
set -eu

# token RESOURCE: prints the access token. The answer never is an argument of a process.
token() {
  answer=$(curl --silent --show-error --max-time 25 --get --unix-socket "${ARCBROKER_SOCKET:-/run/arcbroker/token.sock}" \
    --header 'Metadata: true' --data-urlencode "resource=$1" --data api-version=2018-02-01 \
    http://localhost/metadata/identity/oauth2/token)
  printf %s "$answer" | jq --raw-output '.access_token // (.error_description | halt_error(1))'
}

token "${1:?usage: token.sh RESOURCE}"
