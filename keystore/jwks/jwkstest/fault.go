package jwkstest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Fault is one way to misbehave. The zero Fault behaves.
type Fault struct {
	// Name says what happens, such as "headers then silence".
	Name string

	// Usable says that a careful reader gets the published keys in spite of the fault. Any other
	// fault brings no keys: a careful reader keeps those that it has.
	Usable bool

	dns     bool        // the name does not resolve
	refused bool        // no connection
	mute    bool        // no TLS
	cert    certificate // the one that is shown
	answer  func(w http.ResponseWriter, r *http.Request, a *answer)
}

// String returns the fault's name.
func (f Fault) String() string { return f.Name }

// Faults returns every fault of the catalogue. Each is a fresh copy, since some of them count.
func Faults() []Fault {
	all := []Fault{
		NoSuchHost(), Refused(), Mute(), CertificateExpired(), CertificateOfAnotherHost(), CertificateUnknown(),
		HangHeader(), HangBody(), Drip(), ResetBody(), Truncated(), Endless(), GzipBomb(),
		RedirectLoop(), Redirect("http://" + Host + "/jwks.json"), Redirect("https://169.254.169.254/latest/meta-data/"),
		RetryAfter(http.StatusTooManyRequests, "30"), RetryAfter(http.StatusServiceUnavailable, "30"),
		RetryAfter(http.StatusServiceUnavailable, "Fri, 31 Dec 2999 23:59:59 GMT"), RetryAfter(http.StatusServiceUnavailable, "999999999999999999999"),
		Status(http.StatusInternalServerError), Status(http.StatusNotFound), Flapping(),
		Status(http.StatusNotModified), Status(http.StatusNoContent),
		Body("HTML with 200", "<!DOCTYPE html><title>Maintenance</title>"),
		Body("null", `null`), Body("[]", `[]`), Body("{}", `{}`), Body("keys null", `{"keys":null}`),
		Body("keys an object", `{"keys":{}}`), Body("no keys", `{"keys":[]}`), Body("nothing", ""),
		TrailingGarbage(), DuplicateMembers(), Deep(), TenThousandKeys(), Body("a kid of 1 MB", setOf(`{"kid":"`+strings.Repeat("k", 1<<20)+`"}`)),
		Replicas(), Older(),
	}
	for _, maxAge := range []string{"0", "-1", "315360000"} {
		all = append(all, MaxAge(maxAge))
	}
	all = append(all, Among("a key without kid", strings.Replace(rsaJWK("bad", 2048, "AQAB"), `"kid":"bad",`, ``, 1)))
	for _, bad := range badKeys {
		all = append(all, Among(bad.name, bad.jwk))
	}
	return all
}

// NoSuchHost makes the name unknown to [Server.LookupNetIP].
func NoSuchHost() Fault { return Fault{Name: "DNS failure", dns: true} }

// Refused makes [Server.DialContext] fail as a closed port does.
func Refused() Fault { return Fault{Name: "refused", refused: true} }

// Mute accepts connections and then sends nothing.
func Mute() Fault { return Fault{Name: "accept then silence", mute: true} }

// CertificateExpired shows a certificate that ended in 1991.
func CertificateExpired() Fault { return Fault{Name: "TLS expired", cert: expiredCert} }

// CertificateOfAnotherHost shows a certificate for other.test.
func CertificateOfAnotherHost() Fault { return Fault{Name: "TLS wrong host", cert: otherHostCert} }

// CertificateUnknown shows a certificate of an authority that no reader trusts.
func CertificateUnknown() Fault { return Fault{Name: "TLS unknown CA", cert: unknownCert} }

// HangHeader reads the request and does not answer.
func HangHeader() Fault {
	return Fault{Name: "request then silence", answer: func(_ http.ResponseWriter, r *http.Request, a *answer) { a.hang(r) }}
}

// HangBody answers with a header, and no body.
func HangBody() Fault {
	return Fault{Name: "headers then silence", answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		flush(w)
		a.hang(r)
	}}
}

// Drip sends one byte a second of a good answer.
func Drip() Fault {
	return Fault{Name: "1 byte/s", answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		for i := range len(a.body) {
			io.WriteString(w, a.body[i:i+1])
			flush(w)
			a.sleep(r, time.Second)
		}
	}}
}

// ResetBody cuts the connection in the body.
func ResetBody() Fault {
	return Fault{Name: "reset in the body", answer: func(w http.ResponseWriter, _ *http.Request, a *answer) {
		w.Header().Set("Content-Length", fmt.Sprint(len(a.body)+1))
		io.WriteString(w, a.body[:len(a.body)/2])
		flush(w)
		panic(http.ErrAbortHandler)
	}}
}

// Truncated ends the JSON early in an answer that is otherwise complete.
func Truncated() Fault {
	return Fault{Name: "truncated JSON", answer: func(w http.ResponseWriter, _ *http.Request, a *answer) {
		io.WriteString(w, a.body[:len(a.body)-2])
	}}
}

// Endless sends a chunked body that does not end.
func Endless() Fault {
	return Fault{Name: "endless chunked body", answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		io.WriteString(w, `{"keys":[`)
		junk := strings.Repeat(" ", 16<<10)
		for {
			if _, err := io.WriteString(w, junk); err != nil {
				return
			}
		}
	}}
}

// bomb is 16 MiB in 16 KiB.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	junk := make([]byte, 64<<10)
	for range 256 {
		must(z.Write(junk))
	}
	z.Close()
	return b.Bytes()
})

// GzipBomb sends 16 MiB in a few KiB.
func GzipBomb() Fault {
	made := bomb() // made now, since it takes seconds under the race detector
	return Fault{Name: "gzip bomb", answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(made)
	}}
}

// Redirect answers 302 to another URL.
func Redirect(to string) Fault {
	return Fault{Name: "redirect to " + to, answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}}
}

// RedirectFrom answers 302 at one path only.
func RedirectFrom(path, to string) Fault {
	elsewhere := Redirect(to)
	return Fault{Name: "redirect from " + path + " to " + to, answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		if r.URL.Path != path {
			a.good(w, r)
			return
		}
		elsewhere.answer(w, r, a)
	}}
}

// RedirectLoop redirects forever, on the same host.
func RedirectLoop() Fault {
	var n atomic.Int64
	return Fault{Name: "redirect loop", answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		w.Header().Set("Location", fmt.Sprintf("/jwks.json?%d", n.Add(1)))
		w.WriteHeader(http.StatusFound)
	}}
}

// Status answers with a status and no body.
func Status(code int) Fault {
	return Fault{Name: fmt.Sprintf("status %d", code), answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		w.WriteHeader(code)
	}}
}

// RetryAfter answers with a status and that Retry-After.
func RetryAfter(code int, value string) Fault {
	return Fault{Name: fmt.Sprintf("status %d, Retry-After %s", code, value), answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) {
		w.Header().Set("Retry-After", value)
		w.WriteHeader(code)
	}}
}

// Flapping answers 500 and the good answer in turn.
func Flapping() Fault {
	var n atomic.Int64
	return Fault{Name: "500 and 200 flapping", Usable: true, answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		if n.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		a.good(w, r)
	}}
}

// Body answers 200 with that body.
func Body(name, body string) Fault {
	return Fault{Name: name, answer: func(w http.ResponseWriter, _ *http.Request, _ *answer) { io.WriteString(w, body) }}
}

// altered answers with the good set, changed.
func altered(name string, usable bool, change func(body string) string) Fault {
	return Fault{Name: name, Usable: usable, answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		if strings.HasPrefix(a.body, `{"keys":[`) { // the metadata stays
			a.body, a.etag = change(a.body), ""
		}
		a.good(w, r)
	}}
}

// TrailingGarbage adds something after the set.
func TrailingGarbage() Fault {
	return altered("trailing garbage", false, func(body string) string { return body + `{"more":1}` })
}

// DuplicateMembers adds a second set to the same object.
func DuplicateMembers() Fault {
	return altered("duplicate members", false, func(body string) string { return strings.TrimSuffix(body, "}") + `,"keys":[]}` })
}

// Deep adds a member that is nested 10 000 deep.
func Deep() Fault {
	const depth = 10_000
	return altered("depth 10k", false, func(body string) string {
		return strings.TrimSuffix(body, "}") + `,"x":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}"
	})
}

// TenThousandKeys adds ten thousand keys.
func TenThousandKeys() Fault {
	return altered("10k keys", false, func(body string) string {
		return strings.TrimSuffix(body, "]}") + strings.Repeat(`,{"kty":"OKP"}`, 10_000) + "]}"
	})
}

// Replicas answers in turn with the published set and with one that has only its first key.
func Replicas() Fault {
	var n atomic.Int64
	return Fault{Name: "two replicas in turn", Usable: true, answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		if first, _, many := strings.Cut(a.body, "},{"); many && n.Add(1)%2 == 1 {
			a.body, a.etag = first+"}]}", ""
		}
		a.good(w, r)
	}}
}

// Older answers six seconds late, with the set that was published when the request came. If the
// reader has given up and asked again, that is after a newer answer.
func Older() Fault {
	return Fault{Name: "an older answer after a newer one", answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		a.sleep(r, 6*time.Second)
		a.good(w, r)
	}}
}

// MaxAge answers with that max-age.
func MaxAge(seconds string) Fault {
	return Fault{Name: "max-age " + seconds, Usable: true, answer: func(w http.ResponseWriter, r *http.Request, a *answer) {
		a.header.Set("Cache-Control", "max-age="+seconds)
		a.good(w, r)
	}}
}

// Among puts one more JWK before the published ones.
func Among(name, jwk string) Fault {
	return altered(name+" among good keys", true, func(body string) string {
		return strings.Replace(body, `{"keys":[`, `{"keys":[`+jwk+",", 1)
	})
}

// badKeys are keys that no reader should take.
var badKeys = []struct{ name, jwk string }{
	{"off-curve", `{"kid":"bad","kty":"EC","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`},
	{"RSA 512", rsaJWK("bad", 512, "AQAB")},
	{"RSA 16384", rsaJWK("bad", 16384, "AQAB")},
	{"e = 1", rsaJWK("bad", 2048, "AQ")},
	{"wrong OKP length", `{"kid":"bad","kty":"OKP","crv":"Ed25519","x":"` + b64(make([]byte, 31)) + `"}`},
	{"unknown kty", `{"kid":"bad","kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`},
	{"not an object", `7`},
	{"a kid that is no string", strings.Replace(rsaJWK("bad", 2048, "AQAB"), `"bad"`, `7`, 1)},
	{"use enc", strings.Replace(rsaJWK("bad", 2048, "AQAB"), `"kty"`, `"use":"enc","kty"`, 1)},
	{"a shared secret", `{"kid":"bad","kty":"oct","k":"` + b64(make([]byte, 64)) + `"}`},
	{"a private key", strings.Replace(rsaJWK("bad", 2048, "AQAB"), `"kty"`, `"d":"AQAB","kty"`, 1)},
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}
