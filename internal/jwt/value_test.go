package jwt_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/jwt"
)

// reach is Reach by way of encoding/json.
func reach(object, name string) (json.RawMessage, bool) {
	var top map[string]json.RawMessage
	if json.Unmarshal([]byte(object), &top) != nil {
		return nil, false
	}
	if value, ok := top[name]; ok {
		return value, true
	}
	value := json.RawMessage(object)
	for part := range strings.SplitSeq(name, ".") {
		var inner map[string]json.RawMessage
		if json.Unmarshal(value, &inner) != nil {
			return nil, false
		}
		var ok bool
		if value, ok = inner[part]; !ok {
			return nil, false
		}
	}
	return value, true
}

// FuzzReach compares Reach with encoding/json on every text that a Scanner accepts.
func FuzzReach(f *testing.F) {
	for _, name := range []string{"a", "a.b", "a.b.c", "", ".", "a.", "é", `a"b`} {
		for _, object := range []string{
			`{}`, ` { "a" : 1 } `, `{"a":{"b":"x"}}`, `{"a":{"b":{"c":[1,{"c":2}]}}}`, `{"a.b":1,"a":{"b":2}}`, `{"\u0061":"\"}"}`,
			`{"":{"":0}}`, `{"a":"\\","b":{}}`, `{"x":[{},[],"]"],"a":true}`, `{"a":-1.5e3,"a\"b":null}`, `{"a":[{"b":1}]}`, `{"é":"é"}`,
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
		want, ok := reach(object, name)
		if (got != "") != ok || got != string(want) {
			t.Errorf("Reach(%q, %q) = %q, want %q, %v", object, name, got, want, ok)
		}
	})
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
