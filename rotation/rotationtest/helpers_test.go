package rotationtest_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// fast keeps every inequality of [rotation.Policy.Validate] within a few seconds.
var fast = rotation.Policy{
	Algorithm: keystore.HS256, Every: 6 * time.Second, Propagation: 4500 * time.Millisecond, MaxTokenTTL: 3 * time.Second,
	Leeway: time.Second, ClockSkew: 250 * time.Millisecond, Freshness: 2250 * time.Millisecond, Dwell: time.Second, SignFor: 3 * time.Second,
}

const (
	poll     = 250 * time.Millisecond
	deadline = 450 * time.Millisecond
	pollFor  = poll + poll/5 + deadline // the longest time from one sync to the next
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func short(kid string) string { return kid[:min(len(kid), 5)] }

func shorts(kids []string) (s []string) {
	for _, kid := range kids {
		s = append(s, short(kid))
	}
	return s
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func seconds(rng *rand.Rand, least, most int) time.Duration {
	return time.Duration(least)*time.Second + time.Duration(rng.Int64N(int64(most-least)*int64(time.Second)))
}

// parse reads a token that an instance signed.
func parse(text string) (t token) {
	dot := strings.LastIndexByte(text, '.')
	head, payload, _ := strings.Cut(text[:dot], ".")
	var header struct{ KID string }
	var claims struct{ Exp int64 }
	if err := errors.Join(json.Unmarshal(decode(head), &header), json.Unmarshal(decode(payload), &claims)); err != nil {
		panic(err)
	}
	return token{kid: header.KID, exp: time.Unix(claims.Exp, 0), signed: []byte(text[:dot]), sig: decode(text[dot+1:])}
}

func decode(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
