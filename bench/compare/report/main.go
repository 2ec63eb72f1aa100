// Command report reads the output of one run of make bench from its standard input, and writes
// docs/benchmarks.md and docs/benchmarks.svg. It has no other source of numbers.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
)

func main() {
	md := flag.String("md", "benchmarks.md", "the `file` for the tables")
	svg := flag.String("svg", "benchmarks.svg", "the `file` for the chart")
	flag.Parse()
	if err := write(*md, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// edgeSection returns what make edge has written into the page, with its marks.
func edgeSection(page []byte) []byte {
	const beginMark, endMark = "<!-- Written by make edge. -->\n", "<!-- The end of what make edge writes. -->\n"
	begin, end := bytes.Index(page, []byte(beginMark)), bytes.Index(page, []byte(endMark))
	if begin < 0 || end < begin {
		return nil
	}
	return append([]byte("\n"), page[begin:end+len(endMark)]...)
}

func write(md, svg string) error {
	r, err := parse(os.Stdin)
	if err != nil {
		return err
	}
	var text, chart bytes.Buffer
	writeMarkdown(&text, r)
	writeChart(&chart, r)
	if err := os.WriteFile(svg, chart.Bytes(), 0o644); err != nil {
		return err
	}
	old, err := os.ReadFile(md)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text.Write(edgeSection(old))
	if err := os.WriteFile(md, text.Bytes(), 0o644); err != nil {
		return err
	}
	for _, row := range goals {
		if m := row.measure(r); m.verdict(row.bounds) != "yes" {
			fmt.Printf("report: %s: %s, want %s\n", row.what, m, row.leastText())
		}
	}
	return nil
}
