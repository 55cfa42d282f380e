// Go's HTTP client in a static binary: GET URL, with the bearer token in the variable KEY if one is named.
// Arguments: default | direct, URL [KEY]. `direct` is a transport that reads no proxy variables.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	client := http.DefaultClient
	if os.Args[1] == "direct" {
		client = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true}}
	}
	request, err := http.NewRequest(http.MethodGet, os.Args[2], nil)
	fail(err)
	if len(os.Args) > 3 {
		request.Header.Set("Authorization", "Bearer "+os.Getenv(os.Args[3]))
	}
	answer, err := client.Do(request)
	fail(err)
	body, err := io.ReadAll(answer.Body)
	fail(err)
	fmt.Print(string(body))
	if answer.StatusCode >= 400 {
		fail(fmt.Errorf("%s: %s", answer.Status, answer.Header.Get("X-Deny-Reason")))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
