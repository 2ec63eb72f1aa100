package providers_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// The functions of this file are the Go lines of docs/providers.md: TestPage compares them.

func auth0(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://acme.eu.auth0.com/"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"https://api.acme.example"},
		Match: map[string][]string{"azp": {"wEb4ppCl13ntId"}},
	}, err
}

func okta(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://acme.okta.com/oauth2/default"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"api://default"},
		Match: map[string][]string{"cid": {"0oa1b2c3OrdersWeb"}},
	}, err
}

func entraDirectory(client *jwks.Client) (verifier.Tenant, error) {
	const directory = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
	const issuer = "https://login.microsoftonline.com/" + directory + "/v2.0"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"00001111-aaaa-2222-bbbb-3333cccc4444"},
		Match: map[string][]string{"tid": {directory}},
	}, err
}

func entraCustomers(client *jwks.Client, directories map[string]string) ([]verifier.Tenant, error) {
	const url = "https://login.microsoftonline.com/common/discovery/v2.0/keys"
	var tenants []verifier.Tenant
	for customer, directory := range directories {
		keys, err := client.Open(customer, url, jwks.SourceConfig{}) // one fetch for all of them
		if err != nil {
			return nil, err
		}
		tenants = append(tenants, verifier.Tenant{
			ID: customer, Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
			Issuer:       "https://login.microsoftonline.com/" + directory + "/v2.0",
			OtherIssuers: []string{"https://sts.windows.net/" + directory + "/"}, // tokens of version 1.0
			Audiences:    []string{"00001111-aaaa-2222-bbbb-3333cccc4444", "api://00001111-aaaa-2222-bbbb-3333cccc4444"},
			Match:        map[string][]string{"tid": {directory}},
		})
	}
	return tenants, nil
}

func entraAny(client *jwks.Client) (verifier.Tenant, error) {
	const url = "https://login.microsoftonline.com/common/discovery/v2.0/keys"
	keys, err := client.Open("acme", url, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		AnyIssuer: true, Audiences: []string{"00001111-aaaa-2222-bbbb-3333cccc4444"},
		Match:    map[string][]string{"ver": {"2.0"}},
		Required: []string{"tid", "oid"},
		Check: func(t *verifier.Token) error {
			const personal = "9188040d-6c67-4c5b-b112-36a304b66dad" // the directory of personal accounts
			claims, err := verifier.Claims[struct {
				TID string `json:"tid"`
			}](t)
			if err != nil || claims.TID == personal || t.Issuer() != "https://login.microsoftonline.com/"+claims.TID+"/v2.0" {
				return errors.New("iss is not that of the directory in tid")
			}
			return nil
		},
	}, err
}

func google(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://accounts.google.com"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, OtherIssuers: []string{"accounts.google.com"},
		Audiences: []string{"1234567890-abcdef.apps.googleusercontent.com"},
		Match:     map[string][]string{"hd": {"acme.example"}},
	}, err
}

func apple(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://appleid.apple.com"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"example.acme.orders"},
	}, err
}

func cognitoID(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"3n4b5urk1ft4fl3mg5e62d9ado"},
		Match: map[string][]string{"token_use": {"id"}},
	}, err
}

func cognitoAccess(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, AnyAudience: true, // access tokens have no aud
		Match: map[string][]string{"token_use": {"access"}, "client_id": {"3n4b5urk1ft4fl3mg5e62d9ado"}},
	}, err
}

func firebase(client *jwks.Client) (verifier.Tenant, error) {
	const project = "acme-orders"
	const issuer = "https://securetoken.google.com/" + project
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{project},
		Required: []string{"sub", "auth_time"},
	}, err
}

func supabase(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"
	keys, err := client.Open("acme", issuer+"/.well-known/jwks.json", jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256},
		Issuer: issuer, Audiences: []string{"authenticated"},
		Match: map[string][]string{"role": {"authenticated"}},
		Check: notAnonymous,
	}, err
}

func notAnonymous(t *verifier.Token) error {
	claims, err := verifier.Claims[struct {
		Anonymous bool `json:"is_anonymous"`
	}](t)
	if err != nil || claims.Anonymous {
		return errors.New("an anonymous user")
	}
	return nil
}

func supabaseMoving(client *jwks.Client, secret []byte) (verifier.Tenant, error) {
	const issuer = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"
	current, err1 := client.Open("acme", issuer+"/.well-known/jwks.json", jwks.SourceConfig{})
	legacy, err2 := keystore.NewSecret(keystore.ID{Tenant: "acme", KID: "4LlpUH+rEYaAFYAg"}, keystore.HS256, secret)
	if err := errors.Join(err1, err2); err != nil {
		return verifier.Tenant{}, err
	}
	old, err := keystore.NewStatic(legacy)
	return verifier.Tenant{
		ID: "acme", Keys: keystore.Join(old, current),
		Algorithms: []keystore.Algorithm{keystore.ES256, keystore.HS256}, MixedFamilies: true,
		Issuer: issuer, Audiences: []string{"authenticated"},
		Match: map[string][]string{"role": {"authenticated"}},
		Check: notAnonymous,
	}, err
}

func clerk(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://clerk.acme.example"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, AnyAudience: true, // session tokens have no aud
		Match: map[string][]string{"azp": {"https://app.acme.example"}, "sts": {"active"}},
	}, err
}

func keycloak(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://login.acme.example/realms/acme"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"orders"},
		Match: map[string][]string{"typ": {"Bearer"}, "azp": {"orders-web"}},
	}, err
}

func keycloakInCluster(client *jwks.Client) (verifier.Tenant, error) {
	keys, err := client.Open("acme", "http://keycloak:8080/realms/acme/protocol/openid-connect/certs", jwks.SourceConfig{
		AllowHTTP: true,
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, // the cluster's services
	})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: "https://login.acme.example/realms/acme", Audiences: []string{"orders"},
		Match: map[string][]string{"typ": {"Bearer"}, "azp": {"orders-web"}},
	}, err
}

func linkedIn(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://www.linkedin.com/oauth"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"77acmeorders"},
		Tolerate: []verifier.Tolerance{verifier.Zip},
	}, err
}

func oracle(client *jwks.Client, tokenFile string) (verifier.Tenant, error) {
	const domain = "idcs-1a2b3c4d5e6f"
	keys, err := client.Open("acme", "https://"+domain+".identity.oraclecloud.com/admin/v1/SigningCert/jwk", jwks.SourceConfig{
		Uses: []string{"sign"}, // what the key has in key_ops, instead of verify
		Header: func(context.Context) (http.Header, error) { // not needed if the domain shows its certificate to all
			token, err := os.ReadFile(tokenFile)
			return http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}}, err
		},
	})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: "https://identity.oraclecloud.com/", Audiences: []string{"https://api.acme.example/"},
		Match: map[string][]string{"tenant": {domain}, "tok_type": {"AT"}},
	}, err
}

func kubernetes(client *jwks.Client, tokenFile string) (verifier.Tenant, error) {
	keys, err := client.Open("acme", "https://kubernetes.default.svc/openid/v1/jwks", jwks.SourceConfig{
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, // the cluster's services
		Header: func(context.Context) (http.Header, error) {
			token, err := os.ReadFile(tokenFile) // at each fetch: the kubelet renews it
			return http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}}, err
		},
	})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: "https://kubernetes.default.svc.cluster.local", Audiences: []string{"orders"},
		Match: map[string][]string{"sub": {"system:serviceaccount:shop:web"}},
	}, err
}

func githubActions(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://token.actions.githubusercontent.com"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"https://deploy.acme.example"},
		Match: map[string][]string{
			"repository_owner_id": {"65"}, "repository_id": {"74"}, // numbers, since names can be taken by others
			"ref": {"refs/heads/main"}, "event_name": {"push", "workflow_dispatch"},
		},
	}, err
}

func gitlab(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://gitlab.com"
	keys, err := client.Discover("acme", issuer, jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"https://deploy.acme.example"},
		Match: map[string][]string{"project_id": {"22"}, "ref_type": {"branch"}, "ref": {"main"}, "ref_protected": {"true"}},
	}, err
}

func cloudflareAccess(client *jwks.Client) (verifier.Tenant, error) {
	const issuer = "https://acme.cloudflareaccess.com"
	keys, err := client.Open("acme", issuer+"/cdn-cgi/access/certs", jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.RS256},
		Issuer: issuer, Audiences: []string{"32eafc7626e737849a6a6ff1cd9d2d0a5e6f2b1c3d4e5f60718293a4b5c6d7e8"},
		Match: map[string][]string{"type": {"app"}},
	}, err
}

func cloudflareHandler(v *verifier.Verifier, next http.Handler) http.Handler {
	return middleware.Require(v, middleware.FromHeader("Cf-Access-Jwt-Assertion"), middleware.WithoutAuthorization())(next)
}

func googleIAP(client *jwks.Client) (verifier.Tenant, error) {
	keys, err := client.Open("acme", "https://www.gstatic.com/iap/verify/public_key-jwk", jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256},
		Issuer:    "https://cloud.google.com/iap",
		Audiences: []string{"/projects/123456789/global/backendServices/987654321"},
	}, err
}

func iapHandler(v *verifier.Verifier, next http.Handler) http.Handler {
	return middleware.Require(v, middleware.FromHeader("X-Goog-Iap-Jwt-Assertion"), middleware.WithoutAuthorization())(next)
}

func awsALB(client *jwks.Client) (verifier.Tenant, error) {
	keys, err := client.OpenPEM("acme", "https://public-keys.auth.elb.eu-west-1.amazonaws.com/{kid}", jwks.SourceConfig{})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256},
		Issuer: "https://login.acme.example", AnyAudience: true, // the issuer that the load balancer logs users in at
		MatchHeader: map[string][]string{
			"signer": {"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/shop/50dc6c495c0c9188"},
			"client": {"3ctc20d3i4gh"}, // the load balancer's client id at the issuer
		},
		Tolerate: []verifier.Tolerance{verifier.Padding},
	}, err
}

func albHandler(v *verifier.Verifier, next http.Handler) http.Handler {
	return middleware.Require(v, middleware.FromHeader("X-Amzn-Oidc-Data"), middleware.WithoutAuthorization())(next)
}

func spiffe(client *jwks.Client) (verifier.Tenant, error) {
	keys, err := client.Open("acme", "https://spire.acme.example/bundle", jwks.SourceConfig{Uses: []string{"jwt-svid"}})
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256, keystore.RS256},
		AnyIssuer: true, Audiences: []string{"spiffe://acme.example/orders"}, // iss is not part of a JWT-SVID
		Types: []string{"", "JWT", "JOSE"},
		Check: func(t *verifier.Token) error {
			if !strings.HasPrefix(t.Subject(), "spiffe://acme.example/") {
				return errors.New("another trust domain")
			}
			return nil
		},
	}, err
}

func mastra(secret []byte) (verifier.Tenant, error) {
	key, err := keystore.NewSecret(keystore.ID{Tenant: "acme"}, keystore.HS256, secret)
	if err != nil {
		return verifier.Tenant{}, err
	}
	keys, err := keystore.NewStatic(key)
	return verifier.Tenant{
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		AnyIssuer: true, AnyAudience: true, // tokens of Mastra's JWT auth need neither iss nor aud
	}, err
}
