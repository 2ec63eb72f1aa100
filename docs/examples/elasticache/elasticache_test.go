package elasticache

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The token is a signed request without its scheme, good for 15 minutes, and each has the keys that are
// good now: those of a role end after an hour.
func TestCredentials(t *testing.T) {
	asked, gone := 0, false
	cfg := aws.Config{Region: "eu-central-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		if gone {
			return aws.Credentials{}, errors.New("no role")
		}
		asked++
		return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret", SessionToken: strings.Repeat("s", asked)}, nil
	})}
	get := credentials(cfg, "my-cache", "keyturn")
	for _, session := range []string{"s", "ss"} {
		user, token, err := get(t.Context())
		u, parseErr := url.Parse("http://" + token)
		if err != nil || parseErr != nil || user != "keyturn" || !strings.HasPrefix(token, "my-cache/?Action=connect") || strings.Contains(token, "secret") {
			t.Fatalf("user %q, token %q, %v, %v", user, token, err, parseErr)
		}
		if q := u.Query(); q.Get("User") != "keyturn" || q.Get("X-Amz-Expires") != "900" || q.Get("X-Amz-Signature") == "" || q.Get("X-Amz-Security-Token") != session {
			t.Errorf("token %q", token)
		}
	}
	gone = true
	if _, _, err := get(t.Context()); err == nil {
		t.Error("no error without keys")
	}
}

// docs/redis.md shows this code.
func TestPageShowsThis(t *testing.T) {
	code, err1 := os.ReadFile("elasticache.go")
	page, err2 := os.ReadFile("../../redis.md")
	_, function, found := strings.Cut(string(code), "func credentials(")
	if err := errors.Join(err1, err2); err != nil || !found || !strings.Contains(string(page), "func credentials("+function) {
		t.Errorf("docs/redis.md has other code: %v", err)
	}
}
