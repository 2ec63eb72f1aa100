package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A run is the output of the benchmarks, in the format of
// https://go.dev/design/14313-benchmark-format, with some lines of our own:
//
//	date: 2026-11-23
//	version: golang-jwt v5.3.1
type run struct {
	settings map[string][]string // "cpu": each different value, in order
	results  map[string]*result
	order    []*result
}

// A result is one benchmark with its measurements, a round each.
type result struct {
	name   string // "compare.Hit/tokens=1/lib=keyturn", with "-2" if it ran on two processors
	rounds []map[string]float64
}

var (
	setting   = regexp.MustCompile(`^([a-z]+): +(.*?) *$`)
	benchmark = regexp.MustCompile(`^Benchmark(\S+)\s+\d+\s+(.+)$`)
)

func parse(in io.Reader) (*run, error) {
	r := &run{settings: make(map[string][]string), results: make(map[string]*result)}
	pkg := ""
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if m := setting.FindStringSubmatch(line); m != nil {
			if m[1] == "pkg" {
				pkg = path.Base(m[2])
				continue
			}
			r.set(m[1], m[2])
		}
		if m := benchmark.FindStringSubmatch(line); m != nil {
			if err := r.add(pkg+"."+m[1], strings.Fields(m[2])); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
		}
		if strings.HasPrefix(line, "FAIL") || strings.HasPrefix(line, "--- FAIL") {
			return nil, fmt.Errorf("a benchmark failed: %s", line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(r.order) == 0 {
		return nil, errors.New("there are no benchmarks in the input")
	}
	return r, nil
}

func (r *run) set(name, value string) {
	if !slices.Contains(r.settings[name], value) {
		r.settings[name] = append(r.settings[name], value)
	}
}

// setting returns the value of a setting, or a dash.
func (r *run) setting(name string) string {
	if values := r.settings[name]; len(values) > 0 {
		return strings.Join(values, ", ")
	}
	return none
}

func (r *run) add(name string, fields []string) error {
	if len(fields)%2 != 0 {
		return errors.New("want pairs of a number and a unit")
	}
	units := make(map[string]float64)
	for i := 0; i < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return err
		}
		units[fields[i+1]] = value
	}
	if r.results[name] == nil {
		r.results[name] = &result{name: name}
		r.order = append(r.order, r.results[name])
	}
	r.results[name].rounds = append(r.results[name].rounds, units)
	return nil
}

// units returns the units of a result, sorted.
func (r *result) units() []string {
	all := make(map[string]bool)
	for _, units := range r.rounds {
		for unit := range units {
			all[unit] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// values returns one unit of a benchmark, a value each round.
func (r *run) values(name, unit string) []float64 {
	var list []float64
	if result := r.results[name]; result != nil {
		for _, units := range result.rounds {
			if v, ok := units[unit]; ok {
				list = append(list, v)
			}
		}
	}
	return list
}

// rounds returns the lowest and the highest number of rounds of any benchmark.
func (r *run) rounds() (least, most int) {
	for i, result := range r.order {
		if n := len(result.rounds); i == 0 || n < least {
			least = n
		}
		most = max(most, len(result.rounds))
	}
	return least, most
}
