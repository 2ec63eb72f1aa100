package middleware_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

func TestCookieAndQuery(t *testing.T) {
	v, token := newVerifier(t, "acme"), good("acme")
	cookie, query := middleware.FromCookie("session"), middleware.FromQuery("access_token")
	at := func(token string) string { return "/?access_token=" + token }
	other := good("acme", "sub", "bob")
	tests := []struct {
		name    string
		opts    []middleware.Option
		target  string
		headers []string
		status  int
	}{
		{"both off", nil, at(token), []string{"Cookie", "session=" + token}, 401},
		{"cookie", []middleware.Option{cookie}, "/", []string{"Cookie", "a=b; session=" + token + "; c=d"}, 200},
		{"cookie on a second line", []middleware.Option{cookie}, "/", []string{"Cookie", "a=b", "Cookie", "session=" + token}, 200},
		{"cookie of another name", []middleware.Option{cookie}, "/", []string{"Cookie", "Session=" + token + "; xsession=" + token}, 401},
		{"cookie, empty", []middleware.Option{cookie}, "/", []string{"Cookie", "session="}, 401},
		{"cookie, not a token", []middleware.Option{cookie}, "/", []string{"Cookie", "session=a b"}, 400},
		{"cookie, quoted", []middleware.Option{cookie}, "/", []string{"Cookie", `session="` + token + `"`}, 400},
		{"cookie, bad token", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + badSignature(token)}, 401},
		{"two cookies", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + token + "; session=" + token}, 400},
		{"two cookies, one malformed", []middleware.Option{cookie}, "/", []string{"Cookie", "session=a b; session=" + token}, 400},
		{"two cookies, one empty", []middleware.Option{cookie}, "/", []string{"Cookie", "session=; session=" + token}, 400},
		{"two cookies, one without a value", []middleware.Option{cookie}, "/", []string{"Cookie", "session =" + token + ";session"}, 400},
		{"two cookies on two lines", []middleware.Option{cookie}, "/", []string{"Cookie", "session=" + token, "Cookie", "session=" + token}, 400},
		{"cookie and header", []middleware.Option{cookie}, "/", append(bearer(token), "Cookie", "session="+token), 200},
		{"cookie and another token in the header", []middleware.Option{cookie}, "/", append(bearer(token), "Cookie", "session="+other), 400},
		{"cookie and another scheme", []middleware.Option{cookie}, "/", []string{"Authorization", "Basic eDp5", "Cookie", "session=" + token}, 200},
		{"cookie and a malformed header", []middleware.Option{cookie}, "/", []string{"Authorization", "Bearer", "Cookie", "session=" + token}, 400},
		{"empty cookie and header", []middleware.Option{cookie}, "/", append(bearer(token), "Cookie", "session="), 200},
		{"query", []middleware.Option{query}, at(token), nil, 200},
		{"query, escaped", []middleware.Option{query}, at(strings.ReplaceAll(token, ".", "%2E")), nil, 200},
		{"query, empty", []middleware.Option{query}, at(""), nil, 400},
		{"query, not a token", []middleware.Option{query}, at("a%20b"), nil, 400},
		{"query, of another name", []middleware.Option{query}, "/?Access_token=" + token, nil, 401},
		{"query, twice", []middleware.Option{query}, at(token + "&access_token=" + token), nil, 400},
		{"query and header", []middleware.Option{query}, at(token), bearer(token), 200},
		{"query and another token in the header", []middleware.Option{query}, at(token), bearer(other), 400},
		{"query and cookie", []middleware.Option{query, cookie}, at(token), []string{"Cookie", "session=" + token}, 200},
		{"query and another token in the cookie", []middleware.Option{query, cookie}, at(token), []string{"Cookie", "session=" + other}, 400},
		{"query, cookie and header", []middleware.Option{query, cookie}, at(token), append(bearer(token), "Cookie", "session="+other), 400},
		{"both on, header", []middleware.Option{query, cookie}, "/", bearer(token), 200},
		{"both on, none", []middleware.Option{query, cookie}, "/", nil, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serve(middleware.Require(v, tt.opts...)(whoami), request("GET", tt.target, tt.headers...))
			if w.Code != tt.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
			want := "no-store"
			if w.Code == 200 {
				want = ""
				if strings.HasPrefix(tt.name, "query") {
					want = "private, no-store"
				}
			}
			if got := w.Header().Get("Cache-Control"); got != want {
				t.Errorf("Cache-Control %q, want %q", got, want)
			}
		})
	}
}

func FuzzAuthorization(f *testing.F) {
	token := good("acme")
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer " + token, "bearer " + token, "Bearer  " + token, "Bearer \t" + token, "Digest " + token, "Bearer " + token + " x", "Bearer" + token,
		token, "Basic eDp5", "Basic x, Bearer " + token, "Bearer null", "Bearer " + token + "\n", "Bearer a=b", "Bearer \"", "\x00", "Bearer\t" + token} {
		f.Add(seed)
	}
	h := middleware.Require(newVerifier(f, "acme"))(whoami)
	f.Fuzz(func(t *testing.T, value string) {
		w := serve(h, request("GET", "/", "Authorization", value))
		isGood := len(value) > 7 && strings.EqualFold(value[:7], "Bearer ") && strings.TrimLeft(value[7:], " ") == token
		if (w.Code == 200) != isGood {
			t.Errorf("%q: status %d", value, w.Code)
		}
		if w.Code == 200 {
			return
		}
		if w.Code != 400 && w.Code != 401 {
			t.Errorf("%q: status %d", value, w.Code)
		}
		if c := w.Header().Values("WWW-Authenticate"); len(c) != 1 || !challengeSyntax.MatchString(c[0]) || len(c[0]) > 200 {
			t.Errorf("%q: WWW-Authenticate %q", value, c)
		}
		if !json.Valid(w.Body.Bytes()) || w.Body.Len() > 200 {
			t.Errorf("%q: body %q", value, w.Body)
		}
	})
}

// A request costs a bounded number of allocations, however long its header is.
func TestLongHeaderIsCheap(t *testing.T) {
	h := middleware.Require(newVerifier(t, "acme"))(whoami)
	for _, value := range []string{"Bearer " + strings.Repeat("A", 1<<20), strings.Repeat("A", 1<<20), "Bearer" + strings.Repeat(" ", 1<<20), "Bearer" + strings.Repeat(" ", 1<<20) + "x"} {
		r := request("GET", "/", "Authorization", value)
		if n := testing.AllocsPerRun(2, func() { serve(h, r) }); n > 60 {
			t.Errorf("%.20s...: %v allocations", value, n)
		}
	}
}

// TestQueriesInDisguise: a second or malformed token is found even in a pair that net/url
// skips.
func TestQueriesInDisguise(t *testing.T) {
	v, good := exampleVerifier()
	for _, tt := range []struct {
		query, header string
		want          int // 200 as Require and Optional, or the status of both
	}{
		{query: "access_token=" + good, want: 200},
		{query: "a=b&access_token=" + good + "&c=%zz", want: 200},
		{query: "access%5Ftoken=" + good, want: 200},
		{query: "access_token=" + good + "&access_token=x%zz", want: 400},
		{query: "access_token=" + good + "&access_token=other;a=b", want: 400},
		{query: "a;access_token=other&access_token=" + good, want: 400},
		{query: "access_token=" + good + "&access%5ftoken=x", want: 400},
		{query: "access_token=bad%zz", want: 400},
		{query: "access_token=", want: 400},
		{query: "access_token", want: 400},
		{query: "access_token=x%zz", header: "Bearer " + good, want: 400},
	} {
		for _, guard := range []func(*verifier.Verifier, ...middleware.Option) func(http.Handler) http.Handler{middleware.Require, middleware.Optional} {
			h := guard(v, middleware.FromQuery("access_token"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, ok := middleware.TokenFrom(r.Context()); !ok {
					t.Errorf("%s: served without identity", tt.query)
				}
			}))
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.RawQuery = tt.query
			if tt.header != "" {
				r.Header.Set("Authorization", tt.header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%s: %d, want %d", tt.query, w.Code, tt.want)
			}
		}
	}
}
