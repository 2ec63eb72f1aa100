package jwt_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/jwt"
)

// reach is Reach by way of encoding/json, and by recursion.
func reach(object json.RawMessage, name string) (json.RawMessage, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil, false
	}
	parts := strings.Split(name, ".")
	for n := len(parts); n > 0; n-- {
		value, ok := members[strings.Join(parts[:n], ".")]
		switch {
		case ok && n == len(parts):
			return value, true
		case ok:
			return reach(value, strings.Join(parts[n:], "."))
		}
	}
	return nil, false
}

// FuzzReach compares Reach with encoding/json on every text that a Scanner accepts.
func FuzzReach(f *testing.F) {
	for _, name := range []string{"a", "a.b", "a.b.c", "a.b.c.d", "", ".", "..", "a.", ".a", "é", `a"b`} {
		for _, object := range []string{
			`{}`, ` { "a" : 1 } `, `{"a":{"b":"x"}}`, `{"a":{"b":{"c":[1,{"c":2}]}}}`, `{"a.b":1,"a":{"b":2}}`, `{"\u0061":"\"}"}`,
			`{"":{"":0}}`, `{"a":"\\","b":{}}`, `{"x":[{},[],"]"],"a":true}`, `{"a":-1.5e3,"a\"b":null}`, `{"a":[{"b":1}]}`, `{"a":{"b.c":1}}`, `{"a.b":{"c":1},"a":{"b":{"c":2}}}`, `{"a.b":1,"a":{"b":{"c":2}}}`, `{"a":{"b.c":{"d":1},"b":{"c.d":2}}}`, `{"":{".":1},".":{"":2}}`,
			`{"é":"é"}`,
		} {
			f.Add(object, name)
		}
	}
	f.Fuzz(func(t *testing.T, object, name string) {
		var s jwt.Scanner
		if !s.Scan(object) {
			return
		}
		got := jwt.Reach(object, name)
		want, ok := reach(json.RawMessage(object), name)
		if (got != "") != ok || got != string(want) {
			t.Errorf("Reach(%q, %q) = %q, want %q, %v", object, name, got, want, ok)
		}
	})
}

func TestMisspelt(t *testing.T) {
	for object, want := range map[string]string{
		`{"a":{"b":1}}`:               "",
		` {"A":1,"a":{"b":1}}`:        "A",
		`{"a":{"b":1},"A":1}`:         "A",
		`{"a":{"\u0042":2,"b":1}}`:    "B",
		`{"a":{"b":{"B":1}}}`:         "",
		`{"a":{"c":{"B":1},"b":1}}`:   "",
		`{"a":1,"A.B":1}`:             "", // of another way
		`{"a.b":1,"A.b":1}`:           "A.b",
		`{"a.b":1,"a":{"b":1,"B":1}}`: "",
		`{"A":{"b":1}}`:               "",
		`{}`:                          "",
	} {
		if got := jwt.Misspelt(object, "a.b"); got != want {
			t.Errorf("Misspelt(%s) = %q, want %q", object, got, want)
		}
	}
}

func TestInteger(t *testing.T) {
	for value, want := range map[string]bool{
		"0": true, "7": true, "-7": true, "12345678901234567890123": true,
		"": false, "-": false, "-0": false, "7.0": false, "7e0": false, "7E0": false, `"7"`: false, "null": false, "--7": false,
	} {
		if jwt.Integer(value) != want {
			t.Errorf("Integer(%q) = %v", value, !want)
		}
	}
}
