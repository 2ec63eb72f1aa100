package cache

import (
	"fmt"
	"strings"
	"testing"
)

// TestKeys checks for both constructions which texts and domains have different keys.
func TestKeys(t *testing.T) {
	for name, tag := range map[string]func() func(*state){
		"GHASH": nil,
		"HMAC":  func() func(*state) { return hmacTag(newHMAC(make([]byte, 32))) },
	} {
		t.Run(name, func(t *testing.T) {
			one := make([]counts, 1)
			d := newDigester(one)
			if tag != nil {
				d.pool.New = func() any { return &state{tag: tag(), counts: &one[0]} }
			}
			seen := map[Key]string{}
			for _, domain := range []uint64{0, 1, 1 << 63} {
				for _, text := range []string{"", "\x00", "\x00\x00", "a", "a\x00", "\x00a", "b", strings.Repeat("a", 16), strings.Repeat("a", 17), strings.Repeat("a", 1<<20)} {
					k, _ := d.key(domain, text)
					if again, _ := d.key(domain, text); again != k {
						t.Errorf("%d, %.20q: two keys", domain, text)
					}
					at := fmt.Sprintf("%d, %.20q", domain, text)
					if other, dup := seen[k]; dup {
						t.Errorf("%s and %s: one key", at, other)
					}
					seen[k] = at
					if h := d.spread(&k); h != d.spread(&Key{k.digest, k.length}) {
						t.Error("a key lies in two places")
					}
				}
			}
			other := newDigester(one)
			k1, _ := d.key(0, "a")
			k2, _ := other.key(0, "a")
			if k1 == k2 && tag == nil {
				t.Error("two caches share a secret")
			}
		})
	}
}

// TestOneBit: texts that differ in one bit anywhere have different keys.
func TestOneBit(t *testing.T) {
	d := newDigester(make([]counts, 1))
	text := []byte(strings.Repeat("token", 83))
	seen := map[Key]bool{}
	for i := range text {
		for bit := range 8 {
			text[i] ^= 1 << bit
			k, _ := d.key(0, string(text))
			if seen[k] {
				t.Fatalf("bit %d of byte %d: a key twice", bit, i)
			}
			seen[k] = true
			text[i] ^= 1 << bit
		}
	}
}

// TestTextsAreNotKept: the memory for a text is cleared after use.
func TestTextsAreNotKept(t *testing.T) {
	d := newDigester(make([]counts, 1))
	s := d.pool.Get().(*state)
	d.pool.Put(s)
	d.key(0, "a token that must not stay")
	for _, s := range []*state{s, d.pool.Get().(*state)} {
		if strings.Contains(string(s.text[:cap(s.text)]), "token") {
			t.Error("the text is still there")
		}
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	c, err := New[int](Config{Entries: 100, Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("token", 83)
	_, k := c.Get(0, text, func(*int) bool { return true })
	c.Add(k, "g", &Entry[int]{Value: 7}, 8, nil)
	want := 7
	if n := testing.AllocsPerRun(1000, func() {
		if v, _ := c.Get(0, text, func(v *int) bool { return *v == want }); v == nil {
			t.Error("a miss")
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
