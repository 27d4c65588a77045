#!/usr/bin/env python3
"""An access token for the resource that is given, with the standard library alone."""

import http.client
import json
import os
import socket
import sys
import urllib.parse

SOCKET = os.environ.get("ARCBROKER_SOCKET") or "/run/arcbroker/token.sock"


class Broker(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def token(resource):
    """Ask each time a token is needed: the broker caches and refreshes."""
    query = urllib.parse.urlencode({"api-version": "2018-02-01", "resource": resource})
    broker = Broker("localhost", timeout=25)
    try:
        broker.request("GET", "/metadata/identity/oauth2/token?" + query, headers={"Metadata": "true"})
        response = broker.getresponse()
        answer = json.load(response)
    finally:
        broker.close()
    if response.status != 200:
        raise PermissionError(answer["error_description"])
    return answer["access_token"]


if __name__ == "__main__":
    try:
        print(token(sys.argv[1]))
    except OSError as error:
        sys.exit(str(error))
