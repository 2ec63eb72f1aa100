package compare

import (
	"bytes"
	"testing"
)

// A nodeRequest is one of testdata/node/bench.mjs, which has its meaning.
type nodeRequest struct {
	Open     *nodeLibrary `json:"open,omitempty"`
	Secret   []byte       `json:"secret,omitempty"`
	Issuer   string       `json:"iss,omitempty"`
	Audience string       `json:"aud,omitempty"`
	Tokens   []string     `json:"tokens,omitempty"`

	Checks int `json:"checks,omitempty"`

	Check string `json:"check,omitempty"`
	At    int64  `json:"at,omitempty"`
}

type nodeLibrary struct {
	Lib      string `json:"lib"`
	Cache    bool   `json:"cache,omitempty"`
	Prepared bool   `json:"prepared,omitempty"` // the secret is a KeyObject, made once
}

type nodeAnswer struct {
	Misses int    `json:"misses"`
	NS     int64  `json:"ns"`
	OK     bool   `json:"ok"`
	Why    string `json:"why"`
	Error  string `json:"error"`
}

func (n *node) bench(tb testing.TB, r nodeRequest) nodeAnswer {
	tb.Helper()
	var a nodeAnswer
	n.exchange(tb, r, &a)
	if a.Error != "" {
		tb.Fatal(a.Error)
	}
	return a
}

// open has lib check tokens, and returns them.
func (n *node) open(tb testing.TB, lib nodeLibrary, tokens int) []string {
	tb.Helper()
	secret := bytes.Repeat([]byte("secret, "), 4) // the same as bytes and as a string
	k := key{"HS256", secret, secret}
	list := k.distinct(tb, tokens)
	a := n.bench(tb, nodeRequest{Open: &lib, Secret: secret, Issuer: issuer, Audience: audience, Tokens: list})
	if a.Misses != 0 {
		tb.Fatalf("%d misses, want 0", a.Misses)
	}
	return list
}

var nodeBenchmarks = []struct {
	name   string
	lib    nodeLibrary
	tokens int
}{
	{"lib=fast-jwt/cache=off", nodeLibrary{Lib: "fast-jwt"}, 1},
	{"lib=fast-jwt/cache=on/tokens=1", nodeLibrary{Lib: "fast-jwt", Cache: true}, 1},
	{"lib=fast-jwt/cache=on/tokens=1000", nodeLibrary{Lib: "fast-jwt", Cache: true}, 1000},
	{"lib=fast-jwt/cache=on/tokens=50000", nodeLibrary{Lib: "fast-jwt", Cache: true}, 50_000},
	{"lib=jsonwebtoken/key=prepared", nodeLibrary{Lib: "jsonwebtoken", Prepared: true}, 1},
	{"lib=jsonwebtoken/key=string", nodeLibrary{Lib: "jsonwebtoken"}, 1},
}

// BenchmarkNode has Node check the same token; Node's own clock says how long that takes.
func BenchmarkNode(b *testing.B) {
	n := startNode(b, "bench.mjs")
	for _, bm := range nodeBenchmarks {
		n.open(b, bm.lib, bm.tokens)
		n.bench(b, nodeRequest{Checks: max(2000, bm.tokens)}) // for the compiler
		b.Run(bm.name, func(b *testing.B) {
			a := n.bench(b, nodeRequest{Checks: b.N})
			b.ReportMetric(float64(a.NS)/float64(b.N), "ns/op")
		})
	}
}

// The measured check accepts the token, and refuses one that was changed or has expired, even if it
// was remembered.
func TestNodeBenchmarksCheck(t *testing.T) {
	n := startNode(t, "bench.mjs")
	for _, bm := range nodeBenchmarks {
		token := n.open(t, bm.lib, min(bm.tokens, 10))[0]
		n.bench(t, nodeRequest{Checks: 20})
		for _, tt := range []struct {
			name, token string
			at          int64
			want        bool
		}{
			{"good", token, expires - 60, true},
			{"ended", token, expires + 60, false},
			{"with a letter changed", token[:200] + "A" + token[201:], expires - 60, false},
		} {
			if a := n.bench(t, nodeRequest{Check: tt.token, At: tt.at * 1000}); a.OK != tt.want {
				t.Errorf("%s: a token that is %s: %t (%s), want %t", bm.name, tt.name, a.OK, a.Why, tt.want)
			}
		}
	}
}
