// Command edge measures keyturn in front of a service: how many requests one core passes on, beside
// Go's own reverse proxy that checks nothing, and how many nginx lets in that asks at /authz, beside an
// nginx that asks a handler which checks nothing. It writes the section of docs/benchmarks.md between its
// marks. make edge runs it.
//
// Each proxy is a process of its own with GOMAXPROCS=1. What counts is the processor time that it takes
// for a request, in user and system mode: so other work on the machine disturbs the figure little.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	md := flag.String("md", "docs/benchmarks.md", "the `file` with the section to write; empty: print it")
	rounds := flag.Int("rounds", 9, "how often each proxy is measured")
	requests := flag.Int("requests", 80000, "the requests of a round")
	bare := flag.String("bare", "", "be the bare proxy, to this `URL`")
	bareAuthz := flag.String("bare-authz", "", "be the bare handler that nginx asks, with these `headers` as JSON")
	flag.Parse()
	err := error(nil)
	switch {
	case *bare != "":
		err = serveBare(*bare)
	case *bareAuthz != "":
		err = serveBareAuthz(*bareAuthz)
	default:
		err = run(*md, *rounds, *requests)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "edge:", err)
		os.Exit(1)
	}
}

// A round is what one core would pass on in a second, by each of the proxies.
type round struct{ bare, keyturn float64 }

func (r round) ratio() float64 { return r.keyturn / r.bare }

// leastRatio is what the project promises.
const leastRatio = 0.80

func run(md string, rounds, requests int) error {
	upstream := startUpstream()
	defer upstream.Close()
	dir, err := os.MkdirTemp("", "keyturn-edge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "keyturn")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/keyturn").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bare, err := start(self, "-bare", upstream.URL)
	if err != nil {
		return err
	}
	defer bare.stop()
	keyturn, err := start(program, "serve", "--addr", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream.URL)
	if err != nil {
		return err
	}
	defer keyturn.stop()
	all, err := measure(bare, keyturn, rounds, requests)
	if err != nil {
		return err
	}
	authz, err := runAuthz(dir, self, program, rounds, requests)
	if err != nil {
		return err
	}
	return write(md, section(all, requests)+authzSection(authz, requests))
}

// inTurn measures each of several in eight parts of a round, there and back: a slow second of the machine falls
// on all of them. each returns how many requests a second one core is enough for.
func inTurn(n, requests int, each func(i, requests int) (float64, error)) ([]float64, error) {
	const parts = 8
	seconds := make([]float64, n) // for one request, of each part
	for part := range parts {
		for i := range n {
			if part%2 == 1 {
				i = n - 1 - i
			}
			perSecond, err := each(i, requests/parts)
			if err != nil {
				return nil, err
			}
			seconds[i] += 1 / perSecond / parts
		}
	}
	for i := range seconds {
		seconds[i] = 1 / seconds[i]
	}
	return seconds, nil
}

// measure asks both proxies in turn.
func measure(bare, keyturn *process, rounds, requests int) ([]round, error) {
	var all []round
	for i := range rounds + 1 {
		perSecond, err := inTurn(2, requests, func(i, requests int) (float64, error) {
			return []*process{bare, keyturn}[i].load("/orders/17?fields=all", requests)
		})
		if err != nil {
			return nil, err
		}
		r := round{perSecond[0], perSecond[1]}
		if i == 0 {
			continue // to warm up
		}
		fmt.Printf("round %d: bare %.0f/s, keyturn %.0f/s, %.0f %%\n", i, r.bare, r.keyturn, 100*r.ratio())
		all = append(all, r)
	}
	return all, nil
}

// median returns the median of what of takes from each round.
func median(all []round, of func(round) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	slices.SortFunc(values, cmp.Compare[float64])
	return values[len(values)/2]
}

// section returns the text for docs/benchmarks.md.
func section(all []round, requests int) string {
	bare, own, ratio := median(all, func(r round) float64 { return r.bare }), median(all, func(r round) float64 { return r.keyturn }), median(all, round.ratio)
	least := slices.MinFunc(all, func(a, b round) int { return cmp.Compare(a.ratio(), b.ratio()) }).ratio()
	most := slices.MaxFunc(all, func(a, b round) int { return cmp.Compare(a.ratio(), b.ratio()) }).ratio()
	verdict := "yes"
	if ratio < leastRatio {
		verdict = "**no**"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## In front of a service\n\n")
	fmt.Fprintf(&b, "Measured %s on %d cores, %s/%s, %s. `keyturn serve --upstream` and Go's own\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Fprintf(&b, "`httputil.ReverseProxy`, which checks nothing and sets no identity, pass on the same GET with a token\nof %d bytes; the answer has 1 KiB. %d connections, all kept open. Requests a second are those that one\n", len(benchToken()), connections)
	fmt.Fprintf(&b, "core passes on: a proxy has one, and its processor time counts, not that of the client and the\nservice. Medians of %d rounds with %d requests each.\n\n", len(all), requests)
	fmt.Fprintf(&b, "| | requests a second on one core | next to the bare proxy | rounds | at least | reached |\n|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| bare `ReverseProxy` | %.0f | 100 %% | | | |\n", bare)
	fmt.Fprintf(&b, "| `keyturn serve --upstream` | %.0f | %.0f %% | %.0f to %.0f %% | %.0f %% | %s |\n\n", own, 100*ratio, 100*least, 100*most, 100*leastRatio, verdict)
	fmt.Fprintf(&b, "To measure again, from the root: `make edge`.\n")
	return b.String()
}

// The marks around the section. make bench keeps the text between them.
const (
	beginMark = "<!-- Written by make edge. -->\n"
	endMark   = "<!-- The end of what make edge writes. -->\n"
)

// write replaces the section of the file, or adds it at the end.
func write(md, section string) error {
	text := beginMark + section + endMark
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
		before, rest = append(bytes.TrimRight(page, "\n"), "\n\n"...), nil
	}
	return os.WriteFile(md, slices.Concat(before, []byte(text), rest), 0o644)
}
