package compare

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// nodeLibraries are those of testdata/node/package.json, with the algorithms each knows.
var nodeLibraries = map[string][]string{
	"jose":         algorithms,
	"jsonwebtoken": algorithms[:12], // no Edwards curves
	"fast-jwt":     algorithms[:13], // "EdDSA", not "Ed25519"
}

// Our verifier accepts the tokens of Node's libraries.
func TestVerifierAcceptsNodeTokens(t *testing.T) {
	n := startNode(t, "peer.mjs")
	for lib, algs := range nodeLibraries {
		for _, alg := range algs {
			k := newKey(t, alg)
			answer := n.ask(t, k.request(t, request{Lib: lib, Op: "sign", KID: kid, Claims: claims()}))
			if answer.Error != "" {
				t.Errorf("%s: %s cannot sign: %s", alg, lib, answer.Error)
				continue
			}
			checkClaims(t, k, lib, answer.Token)
		}
	}
}

// Node's libraries accept the tokens of our signer.
func TestNodeAcceptsOurTokens(t *testing.T) {
	n := startNode(t, "peer.mjs")
	for lib, algs := range nodeLibraries {
		for _, alg := range algs {
			k := newKey(t, alg)
			token, err := libraries[0].signer(t, k)()
			if err != nil {
				t.Errorf("%s: we cannot sign: %v", alg, err)
				continue
			}
			verify := k.request(t, request{Lib: lib, Op: "verify", Issuer: issuer, Audience: audience, Token: token})
			switch answer := n.ask(t, verify); {
			case answer.Error != "":
				t.Errorf("%s: %s refuses our token: %s", alg, lib, answer.Error)
			case answer.Claims["sub"] != "user-31415" || answer.Claims["tid"] != tenant || answer.Claims["exp"] != float64(expires):
				t.Errorf("%s: %s reads our token as %v", alg, lib, answer.Claims)
			}

			// The script itself must be able to say no.
			verify.Audience = "https://api.globex.example"
			if answer := n.ask(t, verify); answer.Error == "" {
				t.Errorf("%s: %s accepts a token for another audience", alg, lib)
			}
		}
	}
}

// The folder holds the versions that these tests were written with.
func TestNodeVersionsAreExact(t *testing.T) {
	text, err := os.ReadFile("testdata/node/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Dependencies map[string]string }
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Dependencies) != len(nodeLibraries) {
		t.Errorf("package.json has %d dependencies, the tests use %d", len(manifest.Dependencies), len(nodeLibraries))
	}
	for name, version := range manifest.Dependencies {
		if strings.ContainsFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
			t.Errorf("%s is %q, want one exact version", name, version)
		}
		if nodeLibraries[name] == nil {
			t.Errorf("no test uses %s", name)
		}
	}
}

// A request and an answer are one line each; testdata/node/peer.mjs has their meaning.
type request struct {
	Lib      string         `json:"lib"`
	Op       string         `json:"op"`
	Alg      string         `json:"alg"`
	Key      string         `json:"key,omitempty"`
	Secret   []byte         `json:"secret,omitempty"`
	KID      string         `json:"kid,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
	Issuer   string         `json:"iss,omitempty"`
	Audience string         `json:"aud,omitempty"`
	Token    string         `json:"token,omitempty"`
}

type answer struct {
	Token  string         `json:"token"`
	Claims map[string]any `json:"claims"`
	Error  string         `json:"error"`
}

// request returns r with k's algorithm and the half of k that it needs.
func (k key) request(tb testing.TB, r request) request {
	r.Alg = k.alg
	if secret, ok := k.private.([]byte); ok {
		r.Secret = secret
	} else {
		r.Key = k.pem(tb, r.Op == "sign")
	}
	return r
}

// A node is a running script of testdata/node.
type node struct {
	in  io.Writer
	out *bufio.Reader
}

func startNode(t testing.TB, script string) *node {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat("testdata/node/node_modules")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Node or its packages are missing: %v", err)
		}
		t.Skipf("Node or its packages are missing (make setup brings them): %v", err)
	}
	cmd := exec.Command("node", script) // ends with its input
	cmd.Dir = "testdata/node"
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	for _, err := range []error{err1, err2, cmd.Start()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &node{in: in, out: bufio.NewReader(out)}
}

func (n *node) ask(tb testing.TB, r request) answer {
	tb.Helper()
	var a answer
	n.exchange(tb, r, &a)
	return a
}

// exchange sends one line, and reads another.
func (n *node) exchange(tb testing.TB, request, answer any) {
	tb.Helper()
	line, err := json.Marshal(request)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := n.in.Write(append(line, '\n')); err != nil {
		tb.Fatal(err)
	}
	if line, err = n.out.ReadBytes('\n'); err != nil {
		tb.Fatalf("no answer: %v", err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		tb.Fatalf("answer %q: %v", line, err)
	}
}
