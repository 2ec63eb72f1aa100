package providertest

import (
	"encoding/base64"
	"strings"
)

func kubernetes(k keys) Provider {
	return kubernetesWith(k, "e3b1d185e0d794058a6346c32b2575ac0efb622e", "token-of-this-pod")
}

// KubernetesRotated returns a cluster before and after it has changed its key and the token of the
// reading pod, which it takes from then on instead of the first.
func KubernetesRotated() (before, after Provider) {
	return kubernetes(newKeys()), kubernetesWith(newKeys(), "0b9af77d1e2c3d4f5a60718293a4b5c6d7e8f901", "next-token-of-this-pod")
}

func kubernetesWith(k keys, kid, bearer string) Provider {
	const issuer = "https://kubernetes.default.svc.cluster.local"
	const set, account = "https://kubernetes.default.svc/openid/v1/jwks", "/var/run/secrets/kubernetes.io/serviceaccount/"
	header := object{"alg": "RS256", "kid": kid}
	bound := object{
		"iss": issuer, "aud": list{"orders"}, "sub": "system:serviceaccount:shop:web", "jti": "1b20f55e",
		"kubernetes.io": object{"namespace": "shop", "serviceaccount": object{"name": "web", "uid": "8180de1d"}, "pod": object{"name": "web-1", "uid": "989f1a6e"}},
	}.claims()
	bound = bound.with("nbf", bound["iat"])
	p := Provider{Name: "kubernetes", Files: map[string]string{account + "token": bearer + "\n", account + "ca.crt": ""}}
	p.set(set, k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.Pages[set] = Page{Body: p.Pages[set].Body, Authorization: "Bearer " + bearer}
	p.good("bound token", header, bound, k.rsa)
	p.bad("for the API server", "audience", header, bound.with("aud", list{issuer}), k.rsa)
	p.bad("of another service account", "claim", header, bound.with("sub", "system:serviceaccount:shop:batch"), k.rsa)
	p.bad("of the same name in another namespace", "claim", header, bound.with("sub", "system:serviceaccount:dev:web"), k.rsa)
	p.bad("of a Secret, as before Kubernetes 1.24", "missing_claim", header, bound.with("iss", "kubernetes/serviceaccount").with("aud", nil).with("exp", nil), k.rsa)
	p.forged(header, bound, k.rsa)
	return p
}

func githubActions(k keys) Provider {
	const issuer, kid = "https://token.actions.githubusercontent.com", "cc413527-173f-5a05-976e-9c52b1d7b431"
	header := object{"typ": "JWT", "alg": "RS256", "x5t": k.rsa.x5t(), "kid": kid}
	job := object{
		"iss": issuer, "aud": "https://deploy.acme.example", "sub": "repo:acme/shop:ref:refs/heads/main", "jti": "f1e2", "ref": "refs/heads/main",
		"ref_type": "branch", "sha": "0000", "repository": "acme/shop", "repository_id": "74", "repository_owner": "acme", "repository_owner_id": "65",
		"event_name": "push", "actor": "ann", "run_id": "1", "runner_environment": "github-hosted", "repository_visibility": "private",
		"job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
	}.claims()
	job = job.with("nbf", job["iat"])
	p := Provider{Name: "githubActions"}
	p.discovery(issuer, issuer+"/.well-known/jwks")
	p.set(issuer+"/.well-known/jwks", k.rsa.jwk(kid, k.rsa.x5().with("alg", "RS256").with("use", "sig")))
	p.good("push to main", header, job, k.rsa)
	p.good("with an immutable sub", header, job.with("sub", "repo:acme@65/shop@74:ref:refs/heads/main"), k.rsa)
	p.bad("pull request", "claim", header, job.with("sub", "repo:acme/shop:pull_request").with("ref", "refs/pull/5/merge").with("event_name", "pull_request"), k.rsa)
	p.bad("another branch", "claim", header, job.with("sub", "repo:acme/shop:ref:refs/heads/dev").with("ref", "refs/heads/dev"), k.rsa)
	p.bad("another repository that has taken the name", "claim", header, job.with("repository_id", "9999").with("repository_owner_id", "8888"), k.rsa)
	p.bad("default audience", "audience", header, job.with("aud", "https://github.com/acme"), k.rsa)
	p.forged(header, job, k.rsa)
	return p
}

func gitlab(k keys) Provider {
	const issuer, kid = "https://gitlab.com", "4i3sFE7sxqNPOT7FdvcGA1ZVGGI_r-tsDXnEuYT4ZqE"
	header := object{"kid": kid, "typ": "JWT", "alg": "RS256"}
	job := object{
		"iss": issuer, "aud": "https://deploy.acme.example", "sub": "project_path:acme/shop:ref_type:branch:ref:main", "project_path": "acme/shop",
		"project_id": "22", "namespace_id": "72", "namespace_path": "acme", "user_id": "42", "user_login": "ann", "pipeline_source": "push",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true", "job_id": "302", "jti": "235b",
	}.claims()
	job = job.with("nbf", job["iat"])
	p := Provider{Name: "gitlab"}
	p.discovery(issuer, issuer+"/oauth/discovery/keys")
	p.set(issuer+"/oauth/discovery/keys", k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("job on main", header, job, k.rsa)
	p.bad("another project", "claim", header, job.with("project_id", "23").with("project_path", "acme/blog"), k.rsa)
	p.bad("a branch that is not protected", "claim", header, job.with("ref", "dev").with("ref_protected", "false"), k.rsa)
	p.bad("a tag of the branch's name", "claim", header, job.with("ref_type", "tag"), k.rsa)
	p.bad("login of a user at an application", "audience", header, job.with("aud", "a1b2-application-id"), k.rsa)
	p.bad("CI_JOB_JWT, as before GitLab 17", "issuer", header, job.with("iss", "gitlab.com"), k.rsa)
	p.forged(header, job, k.rsa)
	return p
}

func cloudflareAccess(k keys) Provider {
	const issuer, kid = "https://acme.cloudflareaccess.com", "1a1c3986a44ce6390be42ec772b031df8f433fdc71716db821dc0c39af3bce49"
	const tag = "32eafc7626e737849a6a6ff1cd9d2d0a5e6f2b1c3d4e5f60718293a4b5c6d7e8"
	header := object{"alg": "RS256", "kid": kid, "typ": "JWT"}
	user := object{
		"aud": list{tag}, "email": "ann@acme.example", "iss": issuer, "type": "app", "identity_nonce": "6ei69kawdKzMIAPF",
		"sub": "7335d417-61da-459d-899c-0a01c76a2f94", "country": "DE",
	}.claims()
	user = user.with("nbf", user["iat"])
	set := object{"keys": list{k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"})}, "public_cert": object{"kid": kid, "cert": "-----BEGIN CERTIFICATE-----"}, "public_certs": list{}}
	p := Provider{Name: "cloudflareAccess", Header: "Cf-Access-Jwt-Assertion"}
	p.page(issuer+"/cdn-cgi/access/certs", set)
	p.good("user", header, user, k.rsa)
	p.good("service token", header, user.with("sub", "").with("email", nil).with("common_name", "e367826f93b8.access"), k.rsa)
	p.bad("of another application", "audience", header, user.with("aud", list{strings.Repeat("b", 64)}), k.rsa)
	p.bad("session of the whole team", "claim", header, user.with("type", "org"), k.rsa)
	p.bad("of another team", "issuer", header, user.with("iss", "https://globex.cloudflareaccess.com"), k.rsa)
	p.forged(header, user, k.rsa)
	return p
}

func googleIAP(k keys) Provider {
	const issuer, kid = "https://cloud.google.com/iap", "0oeLcQ"
	header := object{"alg": "ES256", "typ": "JWT", "kid": kid}
	user := object{
		"iss": issuer, "aud": "/projects/123456789/global/backendServices/987654321", "sub": "accounts.google.com:110169484474386276334",
		"email": "ann@acme.example", "hd": "acme.example", "google": object{"access_levels": list{"accessPolicies/1/accessLevels/corp"}},
	}.claims()
	p := Provider{Name: "googleIAP", Header: "X-Goog-Iap-Jwt-Assertion"}
	p.set("https://www.gstatic.com/iap/verify/public_key-jwk", k.ec.jwk(kid, object{"alg": "ES256", "use": "sig"}),
		k.ec.stranger.jwk("5PuDqQ", object{"alg": "ES256", "use": "sig"}))
	p.good("user", header, user, k.ec)
	p.bad("for another backend service", "audience", header, user.with("aud", "/projects/123456789/global/backendServices/111"), k.ec)
	p.bad("for another project", "audience", header, user.with("aud", "/projects/999/global/backendServices/987654321"), k.ec)
	p.bad("Google ID token", "issuer", header, user.with("iss", "https://accounts.google.com"), k.ec)
	p.forged(header, user, k.ec)
	return p
}

// albSigner is the load balancer of the page.
const albSigner = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/shop/50dc6c495c0c9188"

// awsALB pads its tokens. The parameter signer of the header names the load balancer. Load balancers
// of all accounts share the keys, so nothing else is wrong with another account's token.
func awsALB(k keys) Provider {
	const kid = "e38c2a2d-bf84-4c42-ba20-ad9eedfa9a47"
	header, user := albToken(kid)
	p := Provider{Name: "awsALB", Header: "X-Amzn-Oidc-Data"}
	p.Pages = map[string]Page{"https://public-keys.auth.elb.eu-west-1.amazonaws.com/" + kid: {Body: string(k.ec.pem())}}
	add := func(name, reason string, header, claims object, signedBy *key) {
		t := Token{Name: name, Text: padded(header, claims, signedBy), Reason: reason}
		if reason == "" {
			t.Tenant, t.Subject = "acme", "ann"
		}
		p.Tokens = append(p.Tokens, t)
	}
	add("user", "", header, user, k.ec)
	add("of another account's load balancer", "claim", header.with("signer", strings.Replace(albSigner, "123456789012", "999999999999", 1)), user, k.ec)
	add("without a signer", "claim", header.with("signer", nil), user, k.ec)
	add("of another client of the load balancer", "claim", header.with("client", "7other"), user, k.ec)
	add("of another issuer", "issuer", header, user.with("iss", "https://login.globex.example"), k.ec)
	add("signed by another key", "signature", header, user, k.ec.stranger)
	add("of a key that is not there", "unknown_key", header.with("kid", "00000000-bf84-4c42-ba20-ad9eedfa9a47"), user, k.ec)
	add("expired", "expired", header, user.with("exp", 1700000000), k.ec)
	p.bad("without the padding", "malformed", header, user, k.ec)
	return p
}

func albToken(kid string) (header, user object) {
	user = object{"sub": "ann", "email": "ann@acme.example", "iss": "https://login.acme.example"}.claims().with("iat", nil)
	return object{
		"typ": "JWT", "kid": kid, "alg": "ES256", "iss": user["iss"], "client": "3ctc20d3i4gh", "signer": albSigner, "exp": user["exp"],
	}, user
}

// padded returns a compact JWS with padding, which the signature covers.
func padded(header, claims object, k *key) string {
	b64 := base64.URLEncoding.EncodeToString
	input := b64([]byte(header.json())) + "." + b64([]byte(claims.json()))
	return input + "." + b64([]byte(k.sign(input)))
}

func spiffe(k keys) Provider {
	const kid = "IRsID4VIM3T11T5mFvQ"
	header := object{"alg": "ES256", "kid": kid, "typ": "JWT"}
	svid := object{"sub": "spiffe://acme.example/ns/shop/sa/web", "aud": list{"spiffe://acme.example/orders"}}.claims()
	p := Provider{Name: "spiffe"}
	p.page("https://spire.acme.example/bundle", object{
		"spiffe_sequence": 12, "spiffe_refresh_hint": 300, "keys": list{
			k.ec.stranger.jwk("", k.ec.stranger.x5().with("use", "x509-svid")).with("kid", nil),
			k.ec.jwk(kid, object{"use": "jwt-svid"}),
		},
	})
	p.good("JWT-SVID", header, svid, k.ec)
	p.good("with the other type", header.with("typ", "JOSE"), svid, k.ec)
	p.bad("with the type of an access token", "type", header.with("typ", "at+jwt"), svid, k.ec)
	p.good("with an issuer", header.with("typ", nil), svid.with("iss", "https://oidc.acme.example"), k.ec)
	p.bad("for another service", "audience", header, svid.with("aud", list{"spiffe://acme.example/billing"}), k.ec)
	p.bad("of another trust domain", "claim", header, svid.with("sub", "spiffe://globex.example/ns/shop/sa/web"), k.ec)
	p.bad("of a trust domain that begins like it", "claim", header, svid.with("sub", "spiffe://acme.example.evil.example/ns/shop/sa/web"), k.ec)
	p.bad("without exp", "missing_claim", header, svid.with("exp", nil), k.ec)
	p.forged(header, svid, k.ec)
	return p
}

func mastra() Provider {
	secret := &key{secret: []byte("supersecretdevkeythatishs256safe!")}
	header := object{"alg": "HS256", "typ": "JWT"}
	user := object{"sub": "ann", "role": "admin"}.claims()
	p := Provider{Name: "mastra", Env: map[string]string{"MASTRA_JWT_SECRET": string(secret.secret)}}
	p.good("user", header, user, secret)
	p.bad("of another secret", "signature", header, user, &key{secret: []byte("another-secret-of-32-bytes-and-more")})
	p.bad("without exp", "missing_claim", header, user.with("exp", nil), secret)
	p.bad("with a kid", "unknown_key", header.with("kid", "1"), user, secret)
	p.bad("alg none", "algorithm", header.with("alg", "none"), user, secret)
	return p
}
