package rotation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A claimSet says which registered claims there are (RFC 7519, section 4.1).
type claimSet uint8

var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

func (c claimSet) contains(name string) bool {
	return c&(1<<slices.Index(registered, name)) != 0
}

// readClaims returns the registered claims of object, a JSON text, each of which
// must be of its type.
func readClaims(object []byte) (claimSet, error) {
	var has claimSet
	d := jsontext.NewDecoder(bytes.NewBuffer(object))
	if d.PeekKind() != '{' {
		return 0, errNotObject
	}
	d.ReadToken()
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return 0, errNotObject
		}
		name := t.String()
		value, err := d.ReadValue()
		if err != nil {
			return 0, errNotObject
		}
		i := slices.IndexFunc(registered, func(r string) bool { return strings.EqualFold(r, name) })
		switch {
		case i < 0:
			continue
		case name != registered[i]:
			return 0, fmt.Errorf("claim %q differs from %q only by case, and no keyturn verifier accepts that", name, registered[i])
		case !fits(name, value):
			return 0, fmt.Errorf("claim %q must be %s (RFC 7519, section 4.1)", name, wantOf(name))
		}
		has |= 1 << i
	}
	if _, err := d.ReadToken(); err != nil {
		return 0, errNotObject
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return 0, errNotObject
	}
	return has, nil
}

func wantOf(name string) string {
	switch name {
	case "exp", "nbf", "iat":
		return "a number of seconds from 0 to 2^53"
	case "aud":
		return "a string or an array of strings"
	}
	return "a string"
}

// fits reports whether value is of the type that the claim must have.
func fits(name string, value jsontext.Value) bool {
	switch name {
	case "exp", "nbf", "iat":
		if value.Kind() != '0' {
			return false
		}
		f, err := strconv.ParseFloat(string(value), 64)
		return err == nil && 0 <= f && f < 1<<53
	case "aud":
		return value.Kind() == '"' || value.Kind() == '[' && onlyStrings(value)
	}
	return value.Kind() == '"'
}

func onlyStrings(array jsontext.Value) bool {
	d := jsontext.NewDecoder(bytes.NewReader(array))
	d.ReadToken()
	for d.PeekKind() == '"' {
		d.ReadToken()
	}
	return d.PeekKind() == ']'
}
