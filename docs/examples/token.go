// An access token for the resource that is given, with the standard library alone.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
)

var broker = http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", cmp.Or(os.Getenv("ARCBROKER_SOCKET"), "/run/arcbroker/token.sock"))
}}}

func token(resource string) (string, error) {
	target, _ := url.Parse("http://localhost/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + url.QueryEscape(resource))
	response, err := broker.Do(&http.Request{URL: target, Header: http.Header{"Metadata": {"true"}}})
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK {
		return "", cmp.Or(err, fmt.Errorf("%v", answer["error_description"]))
	}
	return fmt.Sprint(answer["access_token"]), nil
}

func main() {
	if token, err := token(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else {
		fmt.Println(token)
	}
}
