package rediskeys

import (
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// values reads what a script has returned, one after the other. What is not
// there, or is something else, sets bad and is zero.
type values struct {
	list any // []any
	next int
	bad  bool
}

func (v *values) left() int {
	list, _ := v.list.([]any)
	return len(list) - v.next
}

func (v *values) value() any {
	if v.left() <= 0 {
		v.bad = true
		return nil
	}
	v.next++
	return v.list.([]any)[v.next-1]
}

func (v *values) text() string {
	s, ok := v.value().(string)
	v.bad = v.bad || !ok
	return s
}

func (v *values) time() time.Time {
	ms, err := strconv.ParseInt(v.text(), 10, 64)
	v.bad = v.bad || err != nil
	return date(ms)
}

// texts returns nil for an empty list.
func (v *values) texts() []string {
	list, ok := v.value().([]any)
	in := values{list: list}
	var all []string
	for in.left() > 0 {
		all = append(all, in.text())
	}
	v.bad = v.bad || !ok || in.bad
	return all
}

func date(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// ms spells a time as the scripts do: 0 is none.
func ms(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(max(t.UnixMilli(), 0), 10)
}

func ceil(d, unit time.Duration) int64 {
	if n := floor(d, unit); time.Duration(n)*unit == d {
		return n
	} else {
		return n + 1
	}
}

func floor(d, unit time.Duration) int64 {
	n := d / unit
	if d%unit < 0 {
		n--
	}
	return int64(n)
}

// spell returns a place as the scripts take it. Nobody has been at a place that
// Redis could not have made, and it would refuse to look for it.
func spell(p rotation.Place) (id, nonce string) {
	if _, _, ok := parseID(p.ID); !ok {
		return "", ""
	}
	return p.ID, p.Nonce
}

// parseID reads the ID of an entry of a log: milliseconds and a number, each
// without leading zeros.
func parseID(id string) (ms, n uint64, ok bool) {
	left, right, _ := strings.Cut(id, "-")
	ms, err1 := strconv.ParseUint(left, 10, 64)
	n, err2 := strconv.ParseUint(right, 10, 64)
	ok = err1 == nil && err2 == nil && id == strconv.FormatUint(ms, 10)+"-"+strconv.FormatUint(n, 10)
	return ms, n, ok
}

func compareIDs(a, b string) int {
	ams, an, _ := parseID(a)
	bms, bn, _ := parseID(b)
	switch {
	case ams < bms || ams == bms && an < bn:
		return -1
	case ams == bms && an == bn:
		return 0
	}
	return 1
}
