package main

import (
	"strconv"
	"time"
)

// since says in words how far t is from now: "in 14 minutes", "3 hours ago".
func since(t, now time.Time) string {
	seconds := t.Unix() - now.Unix() // a Duration would overflow
	switch {
	case seconds == 0:
		return "now"
	case seconds < 0:
		return howLong(-seconds) + " ago"
	}
	return "in " + howLong(seconds)
}

// howLong says a positive number of seconds in its largest unit, rounded down.
func howLong(seconds int64) string {
	const minute, hour, day, year = 60, 3600, 24 * 3600, 365 * 24 * 3600
	n, unit := seconds, "second"
	switch {
	case seconds >= 2*year:
		n, unit = seconds/year, "year"
	case seconds >= 2*day:
		n, unit = seconds/day, "day"
	case seconds >= hour:
		n, unit = seconds/hour, "hour"
	case seconds >= minute:
		n, unit = seconds/minute, "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.FormatInt(n, 10) + " " + unit
}

// stamp writes a moment for people and programs (RFC 3339), in UTC.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// milliseconds is RFC 3339 with milliseconds, in which the dates of a ring are counted.
const milliseconds = "2006-01-02T15:04:05.000Z07:00"

// stampNano writes a moment with nanoseconds (RFC 3339), in UTC.
func stampNano(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// when writes a moment for programs, or null if t is zero.
func when(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := t.UTC().Format(milliseconds)
	return &text
}
