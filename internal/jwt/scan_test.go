package jwt

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// jsonSeeds are texts on both sides of each rule of the scanner.
var jsonSeeds = []string{
	`{}`, ` {} `, "\t\r\n{}", `{"a":1}`, `{"a":1,"b":[1,2,{"c":null}]}`, `{"a":"\u00e9\ud83d\ude00\n"}`,
	``, `null`, `[]`, `"a"`, `1`, `{`, `}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`,
	`{}{}`, `{} x`, `{}//`, `/**/{}`, "\ufeff{}", "\u00a0{}", `{}` + "\x00",
	`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":1}]}`, `{"a":{"a":1},"b":{"a":1}}`, `{"":1,"":2}`, `{"":1}`,
	`{"a":"\ud800"}`, `{"a":"\udc00\ud800"}`, `{"a":"\ud800x"}`, `{"a":"\ud800\u0041"}`, `{"a":"\uD83D\uDE00"}`, `{"a":"\u12"}`, `{"a":"\x"}`, `{"a":"\`, `{"a":"\"}`,
	"{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"\xff\":1}", "{\"a\":\"\x7f\"}", "{\"a\":\"\x1f\"}", "{\"a\":\"\ufffd\"}",
	`{"a":0}`, `{"a":-0}`, `{"a":01}`, `{"a":-}`, `{"a":+1}`, `{"a":.5}`, `{"a":5.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1E-7}`, `{"a":1.5e300}`,
	`{"a":1e308}`, `{"a":1e309}`, `{"a":-1e309}`, `{"a":1e-999999}`, `{"a":[[1e999]]}`, `{"a":` + strings.Repeat("9", 308) + `}`, `{"a":` + strings.Repeat("9", 309) + `}`,
	`{"a":0e999999}`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":0x1}`, `{"a":1_0}`, `{"a":tru}`, `{"a":truex}`, `{"a":True}`, `{"a":nul}`,
	`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
	strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33),
	manyNames(31, ""), manyNames(32, ""), manyNames(40, ""), manyNames(40, `,"n7":0`), manyNames(33, `,"n32":0`), manyNames(31, `,"n0":0`),
	`{"iss":"https://acme.example","sub":"ann","aud":["api","b"],"exp":1.8000036e9,"iat":1799999940,"jti":"x"}`,
	`{"alg":"HS256","kid":"1","typ":"JWT"}`,
}

func manyNames(n int, more string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(",\"n" + string(rune('0'+i/10)) + "\":0")
		if i < 10 {
			continue
		}
		s := b.String()
		b.Reset()
		b.WriteString(s[:len(s)-len("\":0")] + string(rune('0'+i%10)) + "\":0")
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + more + "}"
}

// accepted is the verdict of go-json-experiment, with the two rules of ours that
// it does not have: the text is an object, and its depth is bounded.
func accepted(text string) (members map[string]any, ok bool) {
	if err := json.Unmarshal([]byte(text), &members); err != nil || members == nil {
		return nil, false
	}
	return members, depth(text) <= maxDepth
}

func depth(text string) int {
	d := jsontext.NewDecoder(strings.NewReader(text))
	deepest := 0
	for {
		if _, err := d.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, d.StackDepth())
	}
}

func checkScan(t *testing.T, text string) {
	t.Helper()
	var s Scanner
	got := s.Scan(text)
	members, want := accepted(text)
	if got != want {
		t.Fatalf("Scan(%q) = %v, the library says %v", text, got, want)
	}
	if !got {
		return
	}
	if len(s.Members) != len(members) {
		t.Fatalf("Scan(%q): %d members, the library has %d", text, len(s.Members), len(members))
	}
	for _, m := range s.Members {
		want, ok := members[m.Name]
		if !ok {
			t.Fatalf("Scan(%q): the library has no member %q", text, m.Name)
		}
		var value any
		if err := json.Unmarshal([]byte(m.Value), &value); err != nil {
			t.Fatalf("Scan(%q): the value of %q is not JSON: %q", text, m.Name, m.Value)
		}
		str, isString := String(m.Value)
		if wantStr, wantString := want.(string); isString != wantString || str != wantStr {
			t.Fatalf("String(%q) = %q, %v; the library has %v", m.Value, str, isString, want)
		}
		var list []string
		if EachString(m.Value, func(s string) { list = append(list, s) }) != isStrings(want, list) {
			t.Fatalf("EachString(%q) = %q; the library has %v", m.Value, list, want)
		}
		if f, isNumber := want.(float64); isNumber {
			at, ok := NumericDate(m.Value)
			if want := f >= 0 && f < maxDate; ok != want || ok && at.Unix() != int64(f) {
				t.Fatalf("NumericDate(%q) = %v, %v", m.Value, at, ok)
			}
		} else if _, ok := NumericDate(m.Value); ok {
			t.Fatalf("NumericDate(%q) is a date", m.Value)
		}
	}
	checkMembers(t, text, s.Members)
	s.Forget()
	if !s.Scan(text) {
		t.Fatalf("Scan(%q) fails on a used scanner", text)
	}
}

// checkMembers compares Members and Accepts, which trust an encoder, with the Scanner,
// which trusts nothing.
func checkMembers(t *testing.T, text string, want []Member) {
	t.Helper()
	written := jsontext.Value(text)
	if err := written.Compact(); err != nil {
		t.Fatal(err)
	}
	i := 0
	for name, value := range Members(written) {
		scanned := jsontext.Value(want[i].Value)
		if err := scanned.Compact(); err != nil {
			t.Fatal(err)
		}
		if string(name) != want[i].Name || string(value) != string(scanned) {
			t.Fatalf("Members(%s): member %d is %q: %s, want %+v", written, i, name, value, want[i])
		}
		if got, want := Aud.Accepts(value), EachString(want[i].Value, func(string) {}); got != want {
			t.Fatalf("Aud.Accepts(%s) = %v, EachString says %v", value, got, want)
		}
		_, isString := String(want[i].Value)
		_, isDate := NumericDate(want[i].Value)
		if Sub.Accepts(value) != isString || Exp.Accepts(value) != isDate {
			t.Fatalf("Sub or Exp accept %s: %v, %v; want %v, %v", value, Sub.Accepts(value), Exp.Accepts(value), isString, isDate)
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("Members(%s): %d members, want %d", written, i, len(want))
	}
}

// isStrings reports whether v is a string or an array of strings, and these are list.
func isStrings(v any, list []string) bool {
	if s, ok := v.(string); ok {
		return len(list) == 1 && list[0] == s
	}
	values, ok := v.([]any)
	if !ok {
		return false
	}
	for i, v := range values {
		if s, ok := v.(string); !ok || i < len(list) && list[i] != s {
			return false
		}
	}
	return len(list) == len(values)
}

// TestScan compares the scanner with the library on every seed, and on every seed with one
// byte changed, dropped or cut off.
func TestScan(t *testing.T) {
	for _, seed := range jsonSeeds {
		checkScan(t, seed)
		for i := range min(len(seed), 80) {
			checkScan(t, seed[:i])
			checkScan(t, seed[:i]+seed[i+1:])
			for _, c := range []byte("\"\\{}[]:,0e-. u\x00\x80\xff") {
				checkScan(t, seed[:i]+string([]byte{c})+seed[i+1:])
			}
		}
	}
}

// FuzzJSON compares the scanner of headers and claims with go-json-experiment: they must
// agree on the verdict and the members.
func FuzzJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { checkScan(t, text) })
}
