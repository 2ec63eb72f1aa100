package providertest

// All returns every provider. Each call makes new keys.
func All() []Provider {
	k := newKeys()
	return []Provider{
		auth0(k), okta(k), entraDirectory(k), entraCustomers(k), entraAny(k), google(k), apple(k), cognitoID(k), cognitoAccess(k),
		firebase(k), supabase(k), supabaseMoving(k), clerk(k), keycloak(k), keycloakInCluster(k), linkedIn(k), oracle(k),
		kubernetes(k), githubActions(k), gitlab(k), cloudflareAccess(k), googleIAP(k), awsALB(k), spiffe(k), mastra(),
	}
}

func auth0(k keys) Provider {
	const issuer, kid = "https://acme.eu.auth0.com/", "Nzk0-rS3hBvX9w2kQeLpA"
	header := object{"alg": "RS256", "typ": "JWT", "kid": kid}
	access := object{
		"iss": issuer, "sub": "auth0|65f2b1c09d", "aud": list{"https://api.acme.example", issuer + "userinfo"}, "azp": "wEb4ppCl13ntId",
		"scope": "openid profile read:orders", "permissions": list{"read:orders"}, "org_id": "org_9Xb2",
	}.claims()
	machine := access.with("aud", "https://api.acme.example").with("sub", "wEb4ppCl13ntId@clients").with("gty", "client-credentials")
	p := Provider{Name: "auth0"}
	p.discovery(issuer, issuer+".well-known/jwks.json")
	p.set(issuer+".well-known/jwks.json", k.rsa.jwk(kid, k.rsa.x5().with("alg", "RS256").with("use", "sig")))
	p.good("access token of a user", header, access, k.rsa)
	p.good("access token of a machine", header, machine, k.rsa)
	p.bad("of the RFC 9068 profile, which names the client in client_id", "claim",
		header.with("typ", "at+jwt"), access.with("azp", nil).with("client_id", "wEb4ppCl13ntId").with("jti", "73WakrfVbN"), k.rsa)
	p.bad("ID token", "audience", header, access.with("aud", "wEb4ppCl13ntId").with("azp", nil), k.rsa)
	p.bad("another API", "audience", header, access.with("aud", "https://other.acme.example"), k.rsa)
	p.bad("another client", "claim", header, access.with("azp", "0therCl13ntId"), k.rsa)
	p.bad("without the slash", "issuer", header, access.with("iss", "https://acme.eu.auth0.com"), k.rsa)
	p.forged(header, access, k.rsa)
	return p
}

func okta(k keys) Provider {
	const issuer, kid = "https://acme.okta.com/oauth2/default", "9Cv3tFfD8yXkQ1mUOr0"
	header := object{"alg": "RS256", "kid": kid}
	access := object{
		"ver": 1, "jti": "AT.0mP-4JEZ", "iss": issuer, "aud": "api://default", "cid": "0oa1b2c3OrdersWeb", "uid": "00u1a2b3",
		"scp": list{"openid", "orders.read"}, "sub": "ann@acme.example",
	}.claims()
	p := Provider{Name: "okta"}
	p.discovery(issuer, issuer+"/v1/keys")
	p.set(issuer+"/v1/keys", k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("access token", header, access, k.rsa)
	p.bad("ID token", "audience", header, access.with("aud", "0oa1b2c3OrdersWeb").with("cid", nil), k.rsa)
	p.bad("another client", "claim", header, access.with("cid", "0oa9z8y7Other"), k.rsa)
	p.bad("of the org's own server", "issuer", header, access.with("iss", "https://acme.okta.com").with("aud", "https://acme.okta.com"), k.rsa)
	p.forged(header, access, k.rsa)
	return p
}

// The directories and applications of Entra.
const (
	acmeTID    = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
	globexTID  = "bbbbcccc-1111-dddd-2222-eeee3333ffff"
	otherTID   = "99998888-7777-4666-8555-444433332222"
	ordersApp  = "00001111-aaaa-2222-bbbb-3333cccc4444"
	entraLogin = "https://login.microsoftonline.com/"
	entraKID   = "q-23falevZhhD3hm9CQbkP5MQyU"
)

// entraToken returns header and claims of an access token of version 2.0.
func entraToken(tid string) (header, claims object) {
	header = object{"typ": "JWT", "alg": "RS256", "kid": entraKID}
	claims = object{
		"aud": ordersApp, "iss": entraLogin + tid + "/v2.0", "azp": "11112222-bbbb-3333-cccc-4444dddd5555", "azpacr": "1",
		"oid": "22223333-cccc-4444-dddd-5555eeee6666", "scp": "Orders.Read", "sub": "pairwise-of-ann", "tid": tid, "uti": "k2_x", "ver": "2.0",
	}.claims()
	return header, claims.with("nbf", claims["iat"])
}

// entraKey returns the key as Entra publishes it: without alg.
func entraKey(k keys, issuer string) object {
	return k.rsa.jwk(entraKID, k.rsa.x5().with("use", "sig").with("issuer", issuer).with("cloud_instance_name", "microsoftonline.com"))
}

func entraDirectory(k keys) Provider {
	header, access := entraToken(acmeTID)
	p := Provider{Name: "entraDirectory"}
	p.discovery(entraLogin+acmeTID+"/v2.0", entraLogin+acmeTID+"/discovery/v2.0/keys")
	p.set(entraLogin+acmeTID+"/discovery/v2.0/keys", entraKey(k, entraLogin+"{tenantid}/v2.0"))
	p.good("of a user", header, access, k.rsa)
	p.good("of an application", header, access.with("scp", nil).with("roles", list{"Orders.Read.All"}).with("idtyp", "app"), k.rsa)
	p.bad("of version 1.0", "issuer", header.with("x5t", k.rsa.x5t()), access.with("iss", "https://sts.windows.net/"+acmeTID+"/").with("ver", "1.0"), k.rsa)
	p.bad("of another directory", "issuer", header, access.with("iss", entraLogin+otherTID+"/v2.0").with("tid", otherTID), k.rsa)
	p.bad("for another application", "audience", header, access.with("aud", "99990000-aaaa-2222-bbbb-3333cccc4444"), k.rsa)
	p.bad("for Microsoft Graph, whose nonce was hashed before it was signed", "audience",
		header.with("nonce", "Pmz5x"), access.with("aud", "00000003-0000-0000-c000-000000000000"), k.rsa)
	p.forged(header, access, k.rsa)
	return p
}

func entraCustomers(k keys) Provider {
	p := Provider{Name: "entraCustomers"}
	p.set(entraLogin+"common/discovery/v2.0/keys", entraKey(k, entraLogin+"{tenantid}/v2.0"))
	header, acme := entraToken(acmeTID)
	_, globex := entraToken(globexTID)
	_, other := entraToken(otherTID)
	v1 := acme.with("iss", "https://sts.windows.net/"+acmeTID+"/").with("ver", "1.0").with("aud", "api://"+ordersApp).with("appid", acme["azp"])
	p.goodOf("acme", "of one", header, acme, k.rsa)
	p.goodOf("globex", "of another", header, globex, k.rsa)
	p.goodOf("acme", "of version 1.0", header.with("x5t", k.rsa.x5t()), v1, k.rsa)
	p.bad("of a directory that is no customer", "unknown_tenant", header, other, k.rsa)
	p.bad("iss of one customer, tid of another", "claim", header, acme.with("tid", globexTID), k.rsa)
	p.bad("for another application", "audience", header, globex.with("aud", "99990000-aaaa-2222-bbbb-3333cccc4444"), k.rsa)
	p.bad("of version 1.0 without the slash", "unknown_tenant", header, v1.with("iss", "https://sts.windows.net/"+acmeTID), k.rsa)
	p.forged(header, globex, k.rsa)
	return p
}

func entraAny(k keys) Provider {
	p := Provider{Name: "entraAny"}
	p.set(entraLogin+"common/discovery/v2.0/keys", entraKey(k, entraLogin+"{tenantid}/v2.0"))
	header, acme := entraToken(acmeTID)
	_, other := entraToken(otherTID)
	_, personal := entraToken("9188040d-6c67-4c5b-b112-36a304b66dad")
	p.good("of one directory", header, acme, k.rsa)
	p.good("of any other", header, other, k.rsa)
	p.badInGo("of a personal account", "claim", header, personal, k.rsa)
	p.badInGo("iss of one directory, tid of another", "claim", header, acme.with("tid", otherTID), k.rsa)
	p.bad("without tid", "missing_claim", header, acme.with("tid", nil), k.rsa)
	p.bad("of version 1.0", "claim", header, acme.with("iss", "https://sts.windows.net/"+acmeTID+"/").with("ver", "1.0"), k.rsa)
	p.bad("for another application", "audience", header, acme.with("aud", "99990000-aaaa-2222-bbbb-3333cccc4444"), k.rsa)
	p.forged(header, acme, k.rsa)
	return p
}

func google(k keys) Provider {
	const issuer, kid = "https://accounts.google.com", "8a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
	const client = "1234567890-abcdef.apps.googleusercontent.com"
	header := object{"alg": "RS256", "kid": kid, "typ": "JWT"}
	id := object{
		"iss": issuer, "azp": client, "aud": client, "sub": "110169484474386276334", "hd": "acme.example",
		"email": "ann@acme.example", "email_verified": true, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
	}.claims()
	p := Provider{Name: "google"}
	p.discovery(issuer, "https://www.googleapis.com/oauth2/v3/certs")
	p.set("https://www.googleapis.com/oauth2/v3/certs", k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("ID token", header, id, k.rsa)
	p.good("with the short issuer", header, id.with("iss", "accounts.google.com"), k.rsa)
	p.bad("of another application", "audience", header, id.with("aud", "999-zzz.apps.googleusercontent.com"), k.rsa)
	p.bad("of a personal account", "claim", header, id.with("hd", nil).with("email", "ann@acme.example"), k.rsa)
	p.bad("of another organization", "claim", header, id.with("hd", "globex.example"), k.rsa)
	p.bad("with a slash", "issuer", header, id.with("iss", issuer+"/"), k.rsa)
	p.forged(header, id, k.rsa)
	return p
}

func apple(k keys) Provider {
	const issuer, kid = "https://appleid.apple.com", "T8tIJ1zSrO"
	header := object{"kid": kid, "alg": "RS256"}
	id := object{
		"iss": issuer, "aud": "example.acme.orders", "sub": "001234.a1b2c3d4.0912", "nonce_supported": true,
		"email": "x1y2@privaterelay.appleid.com", "email_verified": "true", "is_private_email": "true",
	}.claims()
	p := Provider{Name: "apple"}
	p.discovery(issuer, issuer+"/auth/keys")
	p.set(issuer+"/auth/keys", k.rsa.jwk(kid, object{"alg": "RS256", "use": "sig"}))
	p.good("ID token", header, id, k.rsa)
	p.good("with email_verified as a boolean", header, id.with("email_verified", true), k.rsa)
	p.bad("of another app", "audience", header, id.with("aud", "example.acme.other"), k.rsa)
	p.bad("server-to-server notification", "missing_claim", header, id.with("exp", nil).with("events", `{"type":"consent-revoked"}`), k.rsa)
	p.forged(header, id, k.rsa)
	return p
}

// The pool and the client of Cognito.
const (
	cognitoPool   = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123"
	cognitoClient = "3n4b5urk1ft4fl3mg5e62d9ado"
	cognitoKID    = "1Z57d2XkQm8vLr0sT+fYw3Bq9NcHa6Ue/0oJpPtKxVE="
)

func cognitoTokens() (header, id, access object) {
	both := object{
		"iss": cognitoPool, "sub": "aaaaaaaa-bbbb-cccc-dddd-example0001", "event_id": "64f5", "origin_jti": "0e9b", "jti": "2d1a",
		"cognito:groups": list{"orders"},
	}.claims()
	id = both.with("aud", cognitoClient).with("token_use", "id").with("cognito:username", "ann").with("email", "ann@acme.example")
	access = both.with("client_id", cognitoClient).with("token_use", "access").with("scope", "orders/read").with("version", 2).with("username", "ann")
	return object{"kid": cognitoKID, "alg": "RS256"}, id, access
}

func cognitoPages(p *Provider, k keys) {
	p.discovery(cognitoPool, cognitoPool+"/.well-known/jwks.json")
	p.set(cognitoPool+"/.well-known/jwks.json", k.rsa.jwk(cognitoKID, object{"alg": "RS256", "use": "sig"}))
}

func cognitoID(k keys) Provider {
	p := Provider{Name: "cognitoID"}
	cognitoPages(&p, k)
	header, id, access := cognitoTokens()
	p.good("ID token", header, id, k.rsa)
	p.bad("access token", "audience", header, access, k.rsa)
	p.bad("access token with an audience", "claim", header, access.with("aud", cognitoClient), k.rsa)
	p.bad("of another client", "audience", header, id.with("aud", "77otherclient"), k.rsa)
	p.bad("of another pool", "issuer", header, id.with("iss", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_ZyXwVu987"), k.rsa)
	p.forged(header, id, k.rsa)
	return p
}

func cognitoAccess(k keys) Provider {
	p := Provider{Name: "cognitoAccess"}
	cognitoPages(&p, k)
	header, id, access := cognitoTokens()
	p.good("access token", header, access, k.rsa)
	p.bad("ID token", "claim", header, id, k.rsa)
	p.bad("of another client", "claim", header, access.with("client_id", "77otherclient"), k.rsa)
	p.forged(header, access, k.rsa)
	return p
}
