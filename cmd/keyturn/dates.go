package main

import (
	"errors"
	"strconv"
	"time"
)

// newDate returns a flag for a date: RFC 3339, or Unix seconds as in the claims of a token.
func newDate() *option[time.Time] {
	return &option[time.Time]{kind: "DATE", parse: parseDate}
}

func parseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && n < 1<<33 {
		return time.Unix(n, 0).UTC(), nil
	}
	return time.Time{}, errors.New("want a date such as 2026-12-24T03:00:00Z, or its Unix seconds, 1798081200")
}
