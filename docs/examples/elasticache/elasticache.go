// Package elasticache logs in to ElastiCache with IAM: a signed request is the password. It is a module
// of its own, so that keyturn does not depend on the SDK of AWS.
package elasticache

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// credentials signs a token for each connection. cache is the name of the cache in lower case, and user
// the ID of the user, which is its name too. A serverless cache also wants ResourceType=ServerlessCache.
func credentials(cfg aws.Config, cache, user string) rediskeys.CredentialsFunc {
	signer := v4.NewSigner()
	return func(ctx context.Context) (string, string, error) {
		keys, err := cfg.Credentials.Retrieve(ctx) // the SDK renews them
		if err != nil {
			return "", "", err
		}
		query := url.Values{"Action": {"connect"}, "User": {user}, "X-Amz-Expires": {"900"}}
		request, err := http.NewRequestWithContext(ctx, "GET", "http://"+cache+"/?"+query.Encode(), nil)
		if err != nil {
			return "", "", err
		}
		const emptyBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // its SHA-256
		signed, _, err := signer.PresignHTTP(ctx, keys, request, emptyBody, "elasticache", cfg.Region, time.Now())
		return user, strings.TrimPrefix(signed, "http://"), err
	}
}
