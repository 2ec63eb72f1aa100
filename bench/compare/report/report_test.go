package main

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the report should be from what it is")

// testdata/run.txt is the output of make bench, cut short: three rounds, one of them odd, and not
// every benchmark.
func canned(t *testing.T) *run {
	t.Helper()
	f, err := os.Open("testdata/run.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		file  string
		write func(io.Writer, *run)
	}{
		{"testdata/want.md", writeMarkdown},
		{"testdata/want.svg", writeChart},
	} {
		var got, again bytes.Buffer
		tt.write(&got, canned(t))
		tt.write(&again, canned(t))
		if !bytes.Equal(got.Bytes(), again.Bytes()) {
			t.Errorf("%s: one input gives two reports", tt.file)
		}
		if *update {
			if err := os.WriteFile(tt.file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(tt.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the report is not that of %s (go test ./report -update writes it):\n%s", tt.file, got.String())
		}
	}
}

func TestVerdicts(t *testing.T) {
	r := canned(t)
	verdicts := make(map[string][3]string)
	for _, g := range goals {
		m := g.measure(r)
		verdicts[g.what] = [3]string{m.String(), m.verdict(g.bounds), m.verdictAim(g.bounds)}
	}
	for what, want := range map[string][3]string{
		// 9000/300, 8000/100, 8000/200: the median of ratios, not the ratio of medians.
		"hit, 1 000 tokens: times as fast as golang-jwt":                      {"40", "yes", "yes"},
		"hit, 1 000 tokens: times as fast as a hit of Kubernetes' cache":      {"4", "yes", "**no**"},
		"hit, 1 000 tokens: allocations":                                      {"0", "yes", none},
		"miss, HS256: times as fast as golang-jwt":                            {"3", "**no**", "**no**"},
		"full check, ES256: time next to the bare signature check":            {"1.05", "yes", "**no**"},
		"two cores: hits, times the throughput of one":                        {"1.90", "yes", "**no**"},
		"service, hit: % of the bare handler's requests per second":           {"96.5", "yes", "**no**"},
		"garbage: time next to a good token's":                                {"0.100", "yes", none},
		"signing, HS256, claims in a map: times as fast as golang-jwt":        {"not measured", none, none},
		"memory, 1 000 000 entries: bytes an entry":                           {"450", "yes", "**no**"},
		"our table, 1 000 texts: times as fast as otter with the same digest": {"1.20", "yes", none},
	} {
		if got, ok := verdicts[what]; !ok || got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}

func TestChartIsPlain(t *testing.T) {
	var svg bytes.Buffer
	writeChart(&svg, canned(t))
	d := xml.NewDecoder(bytes.NewReader(svg.Bytes()))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "svg", "style", "text", "rect":
		default:
			t.Errorf("the chart has a <%s>", start.Name.Local)
		}
	}
	if strings.Contains(svg.String(), "NaN") {
		t.Error("the chart has a NaN")
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "pkg: example/bench\nBenchmarkA 	 10	 5.0 ns/op\n"
	if _, err := parse(strings.NewReader(good)); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"nothing":                 "",
		"no benchmarks":           "pkg: example/bench\nPASS\n",
		"a failure":               good + "--- FAIL: BenchmarkB\n",
		"a number without a unit": good + "BenchmarkB 	 10	 5.0 ns/op	 3\n",
		"a unit without a number": good + "BenchmarkB 	 10	 5.0 ns/op	 allocs/op 3\n",
	} {
		if _, err := parse(strings.NewReader(text)); err == nil {
			t.Errorf("parse accepts %s", name)
		}
	}
}

func TestProcessorsArePartOfTheName(t *testing.T) {
	r, err := parse(strings.NewReader("pkg: x/bench\nBenchmarkA/n=1 	 1	 6 ns/op\nBenchmarkA/n=1-2 	 1	 3 ns/op\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m := ratio("bench.A/n=1", "bench.A/n=1-2")(r); m.String() != "2" {
		t.Errorf("the ratio is %s, want 2", m)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		m    measured
		want float64
	}{
		{measured{3}, 3},
		{measured{9, 1, 2}, 2},
		{measured{4, 1, 9, 2}, 3},
	} {
		if got := tt.m.median(); got != tt.want {
			t.Errorf("the median of %v is %v, want %v", tt.m, got, tt.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{short(0), "0"},
		{short(0.0996), "0.100"},
		{short(0.9999), "1.00"},
		{short(1.054), "1.05"},
		{short(9.999), "10.0"},
		{short(99.96), "100"},
		{short(1234.5), "1234"},
		{nanoseconds(99.4), "99.4 ns"},
		{nanoseconds(1234), "1.23 µs"},
		{nanoseconds(340_000), "340 µs"},
		{nanoseconds(13.9e9), "13.9 s"},
		{thousands(7), "7"},
		{thousands(100_000), "100 000"},
		{thousands(1_000_007), "1 000 007"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// What make edge has written stays when make bench writes the page.
func TestEdgeSectionStays(t *testing.T) {
	const section = "<!-- Written by make edge. -->\n## In front of a service\n<!-- The end of what make edge writes. -->\n"
	if got := edgeSection([]byte("# Old\n\n" + section + "more\n")); string(got) != "\n"+section {
		t.Errorf("edgeSection = %q", got)
	}
	for _, page := range []string{"", "# Old\n", "<!-- Written by make edge. -->\n"} {
		if got := edgeSection([]byte(page)); got != nil {
			t.Errorf("edgeSection(%q) = %q", page, got)
		}
	}
}
