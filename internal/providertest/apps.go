package providertest

import "strings"

func firebase(k keys) Provider {
	const issuer, kid = "https://securetoken.google.com/acme-orders", "d4e0edfe2a8b1c3d5f60718293a4b5c6d7e8f901"
	const set = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
	header := object{"alg": "RS256", "kid": kid, "typ": "JWT"}
	id := object{
		"iss": issuer, "aud": "acme-orders", "sub": "Zk3uQ8", "user_id": "Zk3uQ8", "email": "ann@acme.example", "email_verified": false,
		"firebase": object{"identities": object{"email": list{"ann@acme.example"}}, "sign_in_provider": "password"},
	}.claims()
	id = id.with("auth_time", id["iat"])
	p := Provider{Name: "firebase"}
	p.discovery(issuer, set)
	p.set(set, k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("ID token", header, id, k.rsa)
	p.bad("of another project", "issuer", header, id.with("iss", "https://securetoken.google.com/globex").with("aud", "globex"), k.rsa)
	p.bad("iss of this project, aud of another", "audience", header, id.with("aud", "globex"), k.rsa)
	p.bad("session cookie", "issuer", header, id.with("iss", "https://session.firebase.google.com/acme-orders"), k.rsa)
	p.bad("custom token", "issuer", header, id.with("iss", "sa@acme-orders.iam.gserviceaccount.com").
		with("aud", "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"), k.rsa)
	p.bad("without auth_time", "missing_claim", header, id.with("auth_time", nil), k.rsa)
	p.forged(header, id, k.rsa)
	return p
}

const supabaseIssuer = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"

func supabaseClaims() object {
	return object{
		"iss": supabaseIssuer, "sub": "7f5c2e7a-1b3d-4c5e-9f60-718293a4b5c6", "aud": "authenticated", "role": "authenticated", "aal": "aal1",
		"email": "ann@acme.example", "phone": "", "app_metadata": object{"provider": "email"}, "user_metadata": object{},
		"amr": list{object{"method": "password", "timestamp": 1790000000}}, "session_id": "0b1c", "is_anonymous": false,
	}.claims()
}

// supabaseKey returns the key as Supabase publishes it: made by WebCrypto.
func supabaseKey(k keys) object {
	return k.ec.jwk("c5d54f04-5e65-4450-bc00-ee01df68e965", object{"alg": "ES256", "use": "sig", "ext": true, "key_ops": list{"verify"}})
}

func supabase(k keys) Provider {
	header := object{"alg": "ES256", "kid": "c5d54f04-5e65-4450-bc00-ee01df68e965", "typ": "JWT"}
	session := supabaseClaims()
	p := Provider{Name: "supabase"}
	p.set(supabaseIssuer+"/.well-known/jwks.json", supabaseKey(k))
	p.good("session", header, session, k.ec)
	p.bad("of another project", "issuer", header, session.with("iss", "https://zyxwvutsrqponmlkjihg.supabase.co/auth/v1"), k.ec)
	p.bad("of another role", "claim", header, session.with("role", "service_role"), k.ec)
	p.bad("anonymous key", "issuer", object{"alg": "ES256", "kid": header["kid"]}, object{"iss": "supabase", "ref": "abcdefgh", "role": "anon"}.claims(), k.ec)
	p.badInGo("anonymous user", "claim", header, session.with("is_anonymous", true), k.ec)
	p.forged(header, session, k.ec)
	return p
}

func supabaseMoving(k keys) Provider {
	secret := &key{secret: []byte(strings.Repeat("s3cret/+", 11))}
	header := object{"alg": "ES256", "kid": "c5d54f04-5e65-4450-bc00-ee01df68e965", "typ": "JWT"}
	old := object{"alg": "HS256", "kid": "4LlpUH+rEYaAFYAg", "typ": "JWT"}
	session := supabaseClaims()
	p := Provider{Name: "supabaseMoving", Env: map[string]string{"SUPABASE_JWT_SECRET": string(secret.secret)}}
	p.set(supabaseIssuer+"/.well-known/jwks.json", supabaseKey(k))
	p.good("of the new key", header, session, k.ec)
	p.good("of the old secret", old, session, secret)
	p.badInGo("anonymous user of the old secret", "claim", old, session.with("is_anonymous", true), secret)
	p.bad("of another secret", "signature", old, session, &key{secret: []byte(strings.Repeat("0ther/+x", 11))})
	p.bad("HS256 under the public key, with its kid", "unknown_key", header.with("alg", "HS256"), session, &key{secret: k.ec.pem()})
	p.bad("HS256 under the public key, with the secret's kid", "signature", old, session, &key{secret: k.ec.pem()})
	p.bad("anonymous key of the old secret", "issuer", old.with("kid", nil), object{"iss": "supabase", "ref": "abcdefgh", "role": "anon"}.claims(), secret)
	return p
}

func clerk(k keys) Provider {
	const issuer, kid = "https://clerk.acme.example", "ins_37gTt6cGHQSQTzK1SsVdVsUrVGW"
	header := object{"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": kid, "typ": "JWT"}
	session := object{
		"azp": "https://app.acme.example", "iss": issuer, "sub": "user_2abcDEF", "sid": "sess_2xyz", "sts": "active", "v": 2, "fva": list{85, -1},
		"o": object{"id": "org_2qrs", "rol": "admin", "slg": "acme"},
	}.claims()
	session = session.with("nbf", session["iat"])
	p := Provider{Name: "clerk"}
	p.discovery(issuer, issuer+"/.well-known/jwks.json")
	p.set(issuer+"/.well-known/jwks.json", k.rsa.jwk(kid, object{"use": "sig", "alg": "RS256"}))
	p.good("session token", header, session, k.rsa)
	p.bad("of another origin", "claim", header, session.with("azp", "https://evil.acme.example"), k.rsa)
	p.bad("of a session that is pending", "claim", header, session.with("sts", "pending"), k.rsa)
	p.bad("without azp", "claim", header, session.with("azp", nil), k.rsa)
	p.bad("of the development instance", "issuer", header, session.with("iss", "https://brave-otter-57.clerk.accounts.dev"), k.rsa)
	p.forged(header, session, k.rsa)
	return p
}

const keycloakIssuer = "https://login.acme.example/realms/acme"

// keycloakTokens returns the header and claims of an access token, and the set: one key to sign and
// one to encrypt.
func keycloakTokens(k keys) (header, access object, set []object) {
	const kid = "4hmO65bbc7IVI-3PfA2emAlO0qhv4rB__yw8BPQ58q8"
	header = object{"alg": "RS256", "typ": "JWT", "kid": kid}
	access = object{
		"iss": keycloakIssuer, "aud": list{"orders", "account"}, "sub": "c3cfd999-ca22-4080-9863-277427db4321", "typ": "Bearer", "azp": "orders-web",
		"sid": "de37ba9c", "acr": "1", "realm_access": object{"roles": list{"orders-reader", "offline_access"}},
		"resource_access": object{"orders": object{"roles": list{"read"}}}, "scope": "email profile", "preferred_username": "ann",
	}.claims()
	return header, access.with("jti", "onrtac:1f"), []object{
		k.rsa.jwk(kid, k.rsa.x5().with("alg", "RS256").with("use", "sig")),
		k.rsa.stranger.jwk("Oj8a7eNcr-ypting", k.rsa.stranger.x5().with("alg", "RSA-OAEP").with("use", "enc")),
	}
}

// keycloakWrong adds the tokens that both Keycloaks refuse.
func keycloakWrong(p *Provider, k keys, header, access object) {
	p.bad("without the audience mapper", "audience", header, access.with("aud", "account"), k.rsa)
	p.bad("of another client", "claim", header, access.with("azp", "other-web"), k.rsa)
	p.bad("ID token with the audience", "claim", header, access.with("typ", "ID"), k.rsa)
	p.bad("of another realm", "issuer", header, access.with("iss", "https://login.acme.example/realms/master"), k.rsa)
	p.bad("with the path of Keycloak 16", "issuer", header, access.with("iss", "https://login.acme.example/auth/realms/acme"), k.rsa)
	p.bad("of the address in the cluster", "issuer", header, access.with("iss", "http://keycloak:8080/realms/acme"), k.rsa)
	p.forged(header, access, k.rsa)
}

func keycloak(k keys) Provider {
	p := Provider{Name: "keycloak"}
	header, access, set := keycloakTokens(k)
	p.discovery(keycloakIssuer, keycloakIssuer+"/protocol/openid-connect/certs")
	p.set(keycloakIssuer+"/protocol/openid-connect/certs", set...)
	p.good("access token", header, access, k.rsa)
	keycloakWrong(&p, k, header, access)
	return p
}

func keycloakInCluster(k keys) Provider {
	p := Provider{Name: "keycloakInCluster"}
	header, access, set := keycloakTokens(k)
	p.set("http://keycloak:8080/realms/acme/protocol/openid-connect/certs", set...)
	p.good("access token", header, access, k.rsa)
	keycloakWrong(&p, k, header, access)
	return p
}

func linkedIn(k keys) Provider {
	const issuer, kid = "https://www.linkedin.com/oauth", "d929668a-bab1-4c69-9598-4373149723ff"
	header := object{"zip": "RS256", "kid": kid, "alg": "RS256"}
	id := object{
		"iss": issuer, "aud": "77acmeorders", "sub": "782bbtaQ", "name": "Ann", "email": "ann@acme.example", "email_verified": "true", "locale": "en_US",
	}.claims()
	p := Provider{Name: "linkedIn"}
	p.discovery(issuer, issuer+"/openid/jwks")
	p.set(issuer+"/openid/jwks", k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("ID token", header, id, k.rsa)
	p.bad("of another application", "audience", header, id.with("aud", "77other"), k.rsa)
	p.bad("of the issuer before 2024", "issuer", header, id.with("iss", "https://www.linkedin.com"), k.rsa)
	p.forged(header, id, k.rsa)
	return p
}

func oracle(k keys) Provider {
	const domain, kid = "idcs-1a2b3c4d5e6f", "SIGNING_KEY"
	const set = "https://" + domain + ".identity.oraclecloud.com/admin/v1/SigningCert/jwk"
	header := object{"x5t#S256": "TBoKExKiK4EwfN--Niu2tOX1gSI", "x5t": k.rsa.x5t(), "kid": kid, "alg": "RS256"}
	access := object{
		"iss": "https://identity.oraclecloud.com/", "aud": list{"https://api.acme.example/", "urn:opc:lbaas:logicalguid=" + domain}, "tok_type": "AT",
		"sub": "ann", "sub_type": "user", "sub_mappingattr": "userName", "user.tenant.name": domain, "client_tenantname": domain, "tenant": domain,
		"client_id": "0ade767b9d97", "scope": "orders.read", "domain": "Default", "jti": "9f0e",
	}.claims()
	p := Provider{Name: "oracle"}
	p.set(set, k.rsa.jwk(kid, k.rsa.x5().with("alg", "RS256").with("key_ops", list{"encrypt", "sign"})))
	p.Files = map[string]string{"/run/secrets/idcs-token": "token-of-a-client\n"}
	p.Pages[set] = Page{Body: p.Pages[set].Body, Authorization: "Bearer token-of-a-client"}
	p.good("access token", header, access, k.rsa)
	p.bad("of another domain", "claim", header, access.with("tenant", "idcs-999"), k.rsa)
	p.bad("for another API", "audience", header, access.with("aud", "https://other.acme.example/"), k.rsa)
	p.bad("ID token", "claim", header, access.with("tok_type", "IT"), k.rsa)
	p.bad("without the slash", "issuer", header, access.with("iss", "https://identity.oraclecloud.com"), k.rsa)
	p.forged(header, access, k.rsa)
	return p
}
