package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table returns the text for docs/scale.md.
func table(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %d cores, %s/%s, %s. Each ring is one of HS256 with two keys.\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	line := func(name string, cell func(r row) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, r := range rows {
			fmt.Fprintf(&b, " %s |", cell(r))
		}
		b.WriteString("\n")
	}
	line("tenants", func(r row) string { return fmt.Sprint(r.Tenants) })
	line("---", func(row) string { return "---" })
	line("Redis servers", func(r row) string { return fmt.Sprint(r.Servers) })
	line("until `Open` returns, s", func(r row) string { return fmt.Sprintf("%.2f", r.Open) })
	line("until it is ready, s", func(r row) string { return fmt.Sprintf("%.2f", r.Ready) })
	line("processor time of that, s", func(r row) string { return fmt.Sprintf("%.2f", r.ReadyCPU) })
	line("memory a tenant, bytes", func(r row) string { return fmt.Sprintf("%.0f", r.Bytes) })
	line("the process at rest, MiB", func(r row) string { return fmt.Sprintf("%.0f", r.IdleRSS) })
	line("the process at most, MiB", func(r row) string { return fmt.Sprintf("%.0f", r.RSS) })
	line("processor time of a poll, ms", func(r row) string { return fmt.Sprintf("%.1f", r.Poll) })
	line("the same with a rotator, ms", func(r row) string { return fmt.Sprintf("%.1f", r.Rotating) })
	line("`Keyring.Status`, ms", func(r row) string { return fmt.Sprintf("%.2f", r.Status) })
	line("first lookup of a tenant, µs", func(r row) string { return fmt.Sprintf("%.1f", r.First) })
	line("lookup after that, ns", func(r row) string { return fmt.Sprintf("%.0f", r.Lookup) })
	line("memory of Redis a tenant, bytes", func(r row) string { return fmt.Sprintf("%.0f", r.RedisBytes) })
	return b.String()
}

// The marks around the table. make scale keeps the text around them.
const (
	beginMark = "<!-- Written by make scale. -->\n"
	endMark   = "<!-- The end of what make scale writes. -->\n"
)

// write replaces the table of the file.
func write(md, table string) error {
	text := beginMark + table + endMark
	if md == "" {
		fmt.Print(text)
		return nil
	}
	page, err := os.ReadFile(md)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(page, []byte(beginMark))
	if found {
		_, rest, found = bytes.Cut(rest, []byte(endMark))
	}
	if !found {
		return fmt.Errorf("%s lacks the marks of the table", md)
	}
	return os.WriteFile(md, slices.Concat(before, []byte(text), rest), 0o644)
}
