package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/verifier"
)

const serveLong = `serve starts a small API, of which everything under /api/ wants a good token in
the request's Authorization header. It calls no other service, and answers with what it
knows of the caller.

Without flags it is a demo: two tenants, acme and globex, whose keys rotate every 30
seconds, on a Redis that lives and ends with it. It prints a token for each, and the
curl command to paste.

With a secret in KEYTURN_SECRET or MASTRA_JWT_SECRET, or in the file of
--secret-file, it accepts the HS256 tokens of everyone who has the secret, with
the answers of a Mastra server that uses MastraJwtAuth. A secret has at least 32
bytes; make one with: openssl rand -base64 32
` + secretForm + `

With --redis it accepts the tokens of the rings of --tenant, and rotates their keys:
let it run in several places. It makes no ring unless --bootstrap is given; "keyturn keys
create" does. With several tenants, --iss must name one by {tenant}; without --iss, a
token's iss is its tenant's name.
` + ringForm + `

` + configForm + `

nginx, Caddy, Traefik and Envoy can ask at /authz, or at /ext-authz/default, whether to let
a request in: 200 says whose it is, in headers that begin with X-Auth-. With authz in the file of
--config there are more such questions, each with a name: docs/proxies has what they need.

/healthz answers 200 while the server runs, /readyz 200 while it can verify tokens,
and counts the tenants by their state. /readyz?for=sign says whether the keys of the
rings may sign here. --admin ADDRESS opens a second listener, where
/readyz names each tenant too, and says why it is not ready. It asks for no token: keep
it on 127.0.0.1, or where strangers do not reach it. /TENANT/.well-known/jwks.json has a tenant's public
keys, if it signs with any but HS*; /TENANT/.well-known/openid-configuration tells
readers of them, if --iss is the URL under which they reach /TENANT, such as
https://auth.example/{tenant}. Without /TENANT it is about the only tenant with such keys.

With --upstream URL, requests with a good token go to the service there, and all others are
refused, whatever their path: the path, the query and the body pass byte for byte. The service
learns whose request it is from X-Auth-Tenant, X-Auth-Subject, X-Auth-Scopes, X-Auth-Expires and
X-Auth-Token-Id, which no client can set, and does not see the token. WebSockets, event streams
and other answers that go on end when their token does. /healthz and /readyz are on --admin
alone, which --upstream needs.

With --config the server starts although Redis is away; with --redis it does so once it
has written the file of --snapshot. From that file it verifies tokens of the rings for as
long as if it had not been restarted, and makes none. The file is sealed with the KEK; give each server its own.

With --config the file, and each file that it names, is read again every 10 seconds, and at
once at SIGHUP; with --redis the KEK file is, and the --secret-file. A change takes effect without a restart,
as a whole; if something is wrong, the last good version stays in use. --check says
whether the files are right, and opens nothing on the network.

There is no CORS for /api: it is for curl and for other servers. For pages in a browser,
put a proxy in front that adds it.

At SIGTERM /readyz says 503, and the server goes on for the time of --drain, while load
balancers turn to others. Then, and at once at Ctrl-C, it ends when the requests in
flight are done, or after 10 seconds; a second signal ends it at once.`

const serveExample = `  keyturn serve
  keyturn serve --config keyturn.yaml --admin 127.0.0.1:9102
  keyturn serve --config keyturn.yaml --check
  MASTRA_JWT_SECRET="$(cat secret)" keyturn serve --addr 127.0.0.1:8080
  MASTRA_JWT_SECRET="$(cat secret)" keyturn serve --upstream http://127.0.0.1:3000 --admin 127.0.0.1:9102
  keyturn serve --redis redis://localhost:6379 --kek-file kek --tenant acme --tenant globex \
    --iss https://{tenant}.example --aud api --bootstrap`

// An endpoint is where the server listens.
type endpoint server.Endpoint

// listening tells where the server listens.
func (e endpoint) listening() string {
	if e.URL == "" {
		return "" // on a socket alone
	}
	text := "listening on " + e.URL + "\n"
	if e.Open {
		port := e.URL[strings.LastIndexByte(e.URL, ':'):]
		text += "  on all addresses of this machine; for this machine alone: --addr 127.0.0.1" + port + "\n"
	}
	return text
}

// addresses tells where the server listens, and for whom.
func (e endpoint) addresses() string {
	return e.listening() +
		"  " + e.URL + "/api/...   everything here wants a token\n" +
		"  " + e.URL + "/healthz   200 while the server runs\n" +
		"  " + e.URL + "/readyz   200 while it can verify tokens\n" +
		"  there is no CORS for /api: it is for curl and servers; for browsers, put a proxy in front\n"
}

// adminIntro tells where the admin listener is, if there is one. It warns of one that other machines
// may reach: in a pod that is needed, as the kubelet is another machine.
func (s *serveCommand) adminIntro(srv *server.Server) string {
	at, exposed, ok := srv.Admin()
	if !ok {
		return ""
	}
	if exposed {
		s.log.Warn("the admin listener names every tenant to everyone who reaches it, and other machines may: put it on 127.0.0.1, or keep strangers out with a firewall or a NetworkPolicy",
			"addr", at.URL)
	}
	return "\nadmin on " + at.URL + "\n" +
		"  " + at.URL + "/healthz   200 while the server runs\n" +
		"  " + at.URL + "/readyz   200 while it can verify tokens, with the name and the state of each tenant\n"
}

// unixIntro tells where the socket is, if there is one.
func unixIntro(o *offer) string {
	if o.server.Unix == "" {
		return ""
	}
	return fmt.Sprintf("listening on the socket %s (mode %04o)\n", o.server.Unix, o.server.UnixMode.Perm())
}

// curl returns the command that tries a token on this server: the one of the guide to
// MastraJwtAuth.
func (e endpoint) curl(token string) string {
	return "curl -X POST " + e.URL + `/api/agents/weatherAgent/generate` +
		` -H "Content-Type: application/json" -H "Authorization: Bearer ` + token + `"` +
		` -d '{"messages": "Weather in London"}'`
}

// eventText returns what an event of the server prints.
func eventText(e server.Event) string {
	switch e := e.(type) {
	case server.FreshToken:
		return fmt.Sprintf("\nthe same with a fresh token:\n%s\n", endpoint(e.At).curl(e.Text))
	case server.Stopping:
		return fmt.Sprintf("stopping: serving on for %v while load balancers turn to others; Ctrl-C ends at once\n", e.For)
	case server.Draining:
		return fmt.Sprintf("shutting down: waiting up to %v for requests in flight; Ctrl-C again ends at once\n", e.Limit)
	case server.Stopped:
		return "stopped\n"
	}
	return ""
}

func (s *serveCommand) sharedSecretIntro(at endpoint, source string) string {
	exp := " (add an exp, or start serve with --allow-no-exp)"
	if s.allowNoExp {
		exp = ""
	}
	where, sign := "in a terminal where "+source+" is set to the same secret too", "sign --claim sub=ann"
	if s.secretFile.given {
		where, sign = "with the path of that file", "sign --secret-file FILE --claim sub=ann"
	}
	return fmt.Sprintf("keyturn serve: tokens signed with the secret of %s (HS256) open the API\n", source) +
		at.addresses() +
		"\nmake a token with jwt.io's encoder" + exp + ",\nor " + where + ":\n" + fromClone(sign) + "\n" +
		"\ntry it, with the token in place of <your-jwt>:\n" + at.curl("<your-jwt>") + "\n"
}

func (s *serveCommand) ringIntro(at endpoint, tenants []server.Tenant) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn serve: tokens of %s on Redis open the API\n", countRings(len(tenants)))
	b.WriteString(at.addresses())
	fmt.Fprintf(&b, "  %s/TENANT%s   a tenant's public keys, if it has any\n", at.URL, server.JWKSPath)
	for _, t := range tenants {
		fmt.Fprintf(&b, "  tenant %s, of %s\n", quoteShort(t.Rules.ID), issuerWords(t.Rules.Issuer))
	}
	b.WriteString("\nmake a token where the KEK is (from a clone: go run ./cmd/keyturn for keyturn):\n")
	for _, t := range tenants {
		b.WriteString("keyturn " + s.signArgs(t.Rules.ID) + "\n")
	}
	return b.String()
}

func countRings(n int) string {
	if n == 1 {
		return "one ring"
	}
	return fmt.Sprintf("%d rings", n)
}

func issuerWords(iss string) string {
	if iss == "" {
		return "any issuer"
	}
	return "the issuer " + quoteShort(iss)
}

// signArgs returns the arguments of the command that makes a good token for this server.
func (s *serveCommand) signArgs(tenant string) string {
	words := []string{"sign", "--redis", s.shownRedis(), "--tenant", tenant}
	words = append(words, s.ring.link.words()...)
	if s.ring.kekFile.given {
		words = append(words, "--kek-file", s.ring.kekFile.value)
	}
	if s.ring.realm.given {
		words = append(words, "--realm", s.ring.realm.value)
	}
	for _, other := range s.ring.otherRealms.values {
		words = append(words, "--other-realm", other)
	}
	if iss := s.issuerOf(tenant); iss != "" {
		words = append(words, "--iss", iss)
	}
	if len(s.aud.values) > 0 {
		words = append(words, "--aud", s.aud.values[0])
	}
	words = append(words, "--claim", "sub=ann")
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

// shownRedis returns the URL of --redis if no password can be in it, or else a word for it.
func (s *serveCommand) shownRedis() string {
	if strings.ContainsAny(s.ring.redis.value, "@?") {
		return "URL"
	}
	return s.ring.redis.value
}

func fileIntro(at endpoint, file *configFile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn serve: tokens of %s open the API\n", countTenants(len(file.Tenants)))
	b.WriteString(at.addresses())
	for _, t := range file.Tenants {
		fmt.Fprintf(&b, "  tenant %s (%s), of %s\n", quoteShort(t.ID), t.Kind, issuerWords(t.Issuer))
	}
	return b.String()
}

func demoIntro(at endpoint, tokens []server.DemoToken) string {
	var b strings.Builder
	published := tokens[len(tokens)-1] // of globex, whose keys are public
	b.WriteString("keyturn serve: a demo with two tenants, whose keys rotate every 30 seconds\n")
	b.WriteString(at.addresses())
	fmt.Fprintf(&b, "  %s%s   the public keys of globex; acme has none\n", published.Issuer, server.JWKSPath)
	fmt.Fprintf(&b, "  %s   the issuer of globex, by which readers find those keys\n", published.Issuer)
	for _, t := range tokens {
		fmt.Fprintf(&b, "\na token of tenant %s (%s), good for 2 minutes:\n%s\n", t.Tenant, t.Algorithm, t.Text)
	}
	fmt.Fprintf(&b, "\ntry it:\n%s\n", at.curl(tokens[0].Text))
	fmt.Fprintf(&b, "\na token of globex as others check it:\n%s\n",
		fromClone("verify --allow-loopback --alg ES256 --issuer-url "+published.Issuer+" TOKEN"))
	fmt.Fprintf(&b, "\nthe lines below tell when a key rotates; with a secret in %s you make tokens yourself:\n%s\n",
		envSecrets, fromClone("serve --help"))
	return b.String()
}

// sharedSecretHint returns advice for users whose tokens come from another program.
func sharedSecretHint(bad *verifier.Error) string {
	if bad.Reason == verifier.ReasonUnknownKey && bad.Key.KID != "" {
		return "in shared-secret mode the secret has no name: make tokens without kid"
	}
	if bad.Reason == verifier.ReasonMissingClaim && bad.Claim == "exp" {
		return "the token has no exp and would never end; to accept such tokens, start serve with --allow-no-exp"
	}
	return ""
}

// demoHint returns advice for users with a token of another run or another program, or with an
// expired one.
func demoHint(bad *verifier.Error) string {
	switch bad.Reason {
	case verifier.ReasonUnknownTenant, verifier.ReasonUnknownKey, verifier.ReasonSignature:
		return "the demo accepts only the tokens that it printed since it started; for tokens of your own, set " + envSecrets
	case verifier.ReasonExpired:
		return "the demo's tokens are good for 2 minutes: take the newest that it has printed"
	}
	return ""
}

// noRingHint returns advice while a ring is missing.
func noRingHint(bootstrap bool) string {
	if bootstrap {
		return "it will be made when Redis has stood still for a while"
	}
	return `"keyturn keys create" makes one; so does --bootstrap, here`
}

// openError returns the words and the exit code for an error of [server.New].
func (s *serveCommand) openError(o *offer, err error) error {
	e := new(server.Error)
	if !errors.As(err, &e) {
		return err
	}
	switch e.Part {
	case server.PartListener:
		at := place{"--addr", o.server.Addr, "127.0.0.1:4111"}
		if o.file != nil && o.file.Listen != nil && !s.addr.given {
			at.name = "listen.addr in the file of --config"
		}
		return at.listenError(e.Err)
	case server.PartUnix:
		return unixError(e.Err)
	case server.PartAdmin:
		return s.adminError(o, e.Err)
	case server.PartRedis:
		return exitf(exitCannotTell, "the demo's Redis cannot listen on a loopback port: %v", e.Err)
	case server.PartStore:
		if o.file != nil {
			return usagef("redis of rings or revocations in the file of --config, or %s: %s", envRedis, storeText(e.Err))
		}
		return storeError(e.Err)
	case server.PartRings:
		return openingError(e.Err)
	case server.PartSource:
		return o.file.sourceError(e.Tenant, e.Err)
	}
	if o.file != nil {
		return usagef("the file of --config: %s", errorText(e.Err))
	}
	return usagef("%s", errorText(e.Err))
}

// A place is where a listener was to be, as the user named it.
type place struct {
	name    string // of the flag, or of the field of the file
	addr    string
	example string // an address that is good
}

// adminError returns the words for an admin address that cannot be listened on.
func (s *serveCommand) adminError(o *offer, err error) error {
	at := place{"--admin", o.server.Admin, "127.0.0.1:9102"}
	if !s.admin.given {
		at.name = "admin.addr in the file of --config"
	}
	_, port, splitErr := net.SplitHostPort(at.addr)
	if _, public, _ := net.SplitHostPort(o.server.Addr); splitErr == nil && port == public && errors.Is(err, syscall.EADDRINUSE) {
		return usagef("%s: port %s is that of --addr: choose another, such as %s", at.name, port, at.example)
	}
	return at.listenError(err)
}

// listenError returns the words for an address that cannot be listened on.
func (p place) listenError(err error) error {
	host, port, splitErr := net.SplitHostPort(p.addr)
	switch {
	case splitErr != nil:
		return usagef("%s: want HOST:PORT or :PORT, such as %s", p.name, p.example)
	case errors.Is(err, syscall.EADDRINUSE):
		return usagef("%s: port %s is in use: end the program that has it, or choose another, such as %s", p.name, port, net.JoinHostPort(host, portBeside(port)))
	case errors.Is(err, syscall.EACCES):
		return usagef("%s: not allowed to listen on port %s: choose one above 1023, such as %s", p.name, port, p.example)
	}
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return usagef("%s: cannot listen there: %v", p.name, err)
}

// unixError returns the words for a socket that cannot be listened on.
func unixError(err error) error {
	const name = "listen.unix in the file of --config"
	if errors.Is(err, syscall.EADDRINUSE) {
		return usagef("%s: another program listens there: end it, or choose another path", name)
	}
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return usagef("%s: cannot listen there: %v", name, causeOf(err))
}

// portBeside returns a port beside one that is in use.
func portBeside(port string) string {
	if n, err := strconv.Atoi(port); err == nil && n < 65535 {
		return strconv.Itoa(n + 1)
	}
	return "4112"
}

// addrHint returns advice about an argument that was probably meant as a port.
func addrHint(arg string) string {
	n, err := strconv.ParseUint(strings.TrimPrefix(arg, ":"), 10, 16)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("a port goes after --addr, such as --addr :%d", n)
}
