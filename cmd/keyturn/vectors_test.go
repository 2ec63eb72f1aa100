package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A vector is one case of verifier/testdata/vectors/tokens.json.
type vector struct {
	ID       string          `json:"id"`
	Keys     json.RawMessage `json:"keys"`
	Algs     []string        `json:"algs"`
	Now      json.Number     `json:"now"`
	Leeway   json.Number     `json:"leeway_s"`
	Token    string          `json:"token"`
	TokenB64 *string         `json:"token_b64"`
	TokenGen *struct {
		Prefix, Repeat, Suffix string
		Count                  int
	} `json:"token_gen"`
	Expect   struct{ Iss, Aud *string } `json:"expect"`
	Verdict  string                     `json:"verdict"`
	Policy   bool                       `json:"policy"`
	Decision string                     `json:"decision"`
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	doc, err := os.ReadFile("../../verifier/testdata/vectors/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Cases []vector }
	if err := json.Unmarshal(doc, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Cases) < 350 {
		t.Fatalf("%d vectors, want 350 and more", len(all.Cases))
	}
	return all.Cases
}

// accept reports whether the verdict must be that the token is good.
func (v *vector) accept(t testing.TB) bool {
	t.Helper()
	verdict := v.Verdict
	if v.Policy {
		verdict = v.Decision
	}
	if verdict != "accept" && verdict != "reject" {
		t.Fatalf("%s: verdict %q", v.ID, verdict)
	}
	return verdict == "accept"
}

func (v *vector) token(t testing.TB) string {
	t.Helper()
	switch {
	case v.TokenB64 != nil:
		raw, err := base64.StdEncoding.DecodeString(*v.TokenB64)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	case v.TokenGen != nil:
		g := v.TokenGen
		return g.Prefix + strings.Repeat(g.Repeat, g.Count) + g.Suffix
	}
	return v.Token
}

// args returns the arguments of keyturn without the token. The JWK Set is written into dir.
func (v *vector) args(t testing.TB, dir string) []string {
	t.Helper()
	set := filepath.Join(dir, v.ID+".json")
	if err := os.WriteFile(set, v.Keys, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--json", "--jwks", set, "--alg", strings.Join(v.Algs, ","), "--now", v.Now.String()}
	if v.Leeway != "0" {
		args = append(args, "--leeway", v.Leeway.String()+"s")
	}
	if v.Expect.Iss != nil {
		args = append(args, "--iss", *v.Expect.Iss)
	}
	if v.Expect.Aud != nil {
		args = append(args, "--aud", *v.Expect.Aud)
	}
	return args
}

// reasons are the only ones that the command may print.
var reasons = strings.Fields(`malformed too_large type critical algorithm unknown_tenant suspended unknown_key revoked_key signature
	expired not_yet_valid too_old issuer audience tenant missing_claim claim revoked unavailable`)

// check holds the command's answer against the vector's verdict.
func (v *vector) check(t *testing.T, r result) {
	t.Helper()
	if !v.accept(t) {
		if r.code == exitUsage && r.stdout == "" && r.stderr != "" {
			return // a list of algorithms or a set that cannot be loaded
		}
		var answer struct {
			OK            *bool
			Reason, Error string
		}
		decodeLine(t, r.stdout, &answer)
		if r.code != exitNo || answer.OK == nil || *answer.OK || !slices.Contains(reasons, answer.Reason) || answer.Error == "" {
			t.Errorf("exit code = %d, stdout = %s; want a refusal", r.code, r.stdout)
		}
		return
	}
	var answer struct {
		OK               bool
		Tenant, KID, Alg string
		Claims           map[string]any
	}
	decodeLine(t, r.stdout, &answer)
	if r.code != exitYes || !answer.OK || answer.Tenant != "default" || !slices.Contains(v.Algs, answer.Alg) {
		t.Fatalf("exit code = %d, stdout = %s, stderr = %s; want the token accepted", r.code, r.stdout, r.stderr)
	}
	var want map[string]any
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(v.token(t), ".")[1])
	if err != nil || json.Unmarshal(payload, &want) != nil {
		t.Fatalf("payload of an accepted vector cannot be read: %v", err)
	}
	if !reflect.DeepEqual(answer.Claims, want) {
		t.Errorf("claims = %v, want %v", answer.Claims, want)
	}
}

// decodeLine decodes one line of JSON that has only the members of target.
func decodeLine(t *testing.T, line string, target any) {
	t.Helper()
	if !strings.HasSuffix(line, "\n") || strings.Count(line, "\n") != 1 {
		t.Errorf("stdout = %q, want one line", line)
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(target); err != nil {
		t.Errorf("stdout = %q: %v", line, err)
	}
}

// maxArg is the longest TOKEN that an argument can be relied on to hold. Longer tokens come by
// standard input, and so do tokens with a NUL, which no argument can hold.
const maxArg = 100 << 10

func TestVectors(t *testing.T) {
	dir := t.TempDir()
	for _, v := range readVectors(t) {
		t.Run(v.ID, func(t *testing.T) {
			args, token := v.args(t, dir), v.token(t)
			v.check(t, call{stdin: strings.NewReader(token + "\n")}.run(t, append(args, "-")...))
			if len(token) <= maxArg {
				v.check(t, keyturn(t, append(args, "--", token)...))
			}
		})
	}
}

// TestVectorsBinary runs the vectors through the built command.
func TestVectorsBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("starts some hundred processes")
	}
	dir := t.TempDir()
	builtBinary(t)
	for _, v := range readVectors(t) {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			args, token := v.args(t, dir), v.token(t)
			if len(token) > maxArg || strings.Contains(token, "\x00") {
				v.check(t, process(t, token+"\n", append(args, "-")...))
			} else {
				v.check(t, process(t, "", append(args, "--", token)...))
			}
		})
	}
}

// TestInspectVectors: inspect survives all vectors, and agrees with the verifier on which tokens can
// be decoded.
func TestInspectVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.ID, func(t *testing.T) {
			token := v.token(t)
			for _, flags := range [][]string{{}, {"--json"}} {
				r := call{stdin: strings.NewReader(token + "\n")}.run(t, append([]string{"inspect", "-"}, flags...)...)
				if r.code != exitYes && (v.accept(t) || r.code != exitNo) {
					t.Errorf("exit code = %d; stderr: %s", r.code, r.stderr)
				}
				wantPrintable(t, r.stdout+r.stderr)
			}
		})
	}
}
