// Command scale measures a keyring of many tenants on real redis-servers on loopback: how long it takes
// to open, what a tenant costs in memory here and in Redis, and what a poll costs when nothing changed.
// It writes the table of docs/scale.md between its marks. make scale runs it.
//
// Each keyring is opened by a process of its own, so that nothing else is in its memory.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/redistest"
)

func main() {
	md := flag.String("md", "docs/scale.md", "the `file` with the table to write; empty: print it")
	sizes := flag.String("sizes", "1000,10000,100000", "how many tenants, each on one redis-server; empty: none")
	large := flag.Int("cluster", 0, "how many tenants on a Redis Cluster of three besides; 0: none")
	var o openOptions
	flag.StringVar(&o.url, "open", "", "be the process that opens a keyring of the store at this `URL`")
	flag.StringVar(&o.cpu, "cpuprofile", "", "write a profile of opening to this `file`")
	flag.StringVar(&o.poll, "pollprofile", "", "write a profile of the polls to this `file`")
	flag.StringVar(&o.heap, "heapprofile", "", "write a profile of the memory of an idle keyring to this `file`")
	flag.Parse()
	var err error
	if o.url != "" {
		err = open(context.Background(), o)
	} else {
		err = run(context.Background(), *md, *sizes, *large, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// run measures each size, and writes the table.
func run(ctx context.Context, md, sizes string, large int, o openOptions) error {
	var rows []row
	for text := range strings.SplitSeq(sizes, ",") {
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		server, err := redistest.Start(redistest.Options{})
		if err != nil {
			return err
		}
		r, err := measure(ctx, n, []*redistest.Server{server}, "redis://"+server.Addr(), o)
		server.Stop()
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if large > 0 {
		cluster, err := redistest.StartCluster(redistest.Options{})
		if err != nil {
			return err
		}
		r, err := measure(ctx, large, cluster.Servers, "redis-cluster://"+strings.Join(cluster.Addrs(), ","), o)
		cluster.Stop()
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return write(md, table(rows))
}

// A row is the figures of one size.
type row struct {
	Tenants, Servers int
	RedisBytes       float64 // of memory a ring
	RedisPoll        float64 // milliseconds of processor time of all servers a poll
	figures
}

// measure fills the servers with n rings, and lets another process open them.
func measure(ctx context.Context, n int, servers []*redistest.Server, url string, o openOptions) (row, error) {
	before, err := sum(ctx, servers, "memory", "used_memory")
	if err != nil {
		return row{}, err
	}
	if err := fill(ctx, n, servers, url); err != nil {
		return row{}, fmt.Errorf("filling with %d rings: %w", n, err)
	}
	after, err := sum(ctx, servers, "memory", "used_memory")
	if err != nil {
		return row{}, err
	}
	runtime.GC()
	self, err := os.Executable()
	if err != nil {
		return row{}, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-open", url}, o.profiles(n)...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return row{}, fmt.Errorf("opening %d rings: %w", n, err)
	}
	r := row{Tenants: n, Servers: len(servers), RedisBytes: (after - before) / float64(n)}
	if err := json.Unmarshal(out, &r.figures); err != nil {
		return row{}, err
	}
	if r.Held != n {
		return row{}, fmt.Errorf("%d of %d rings are held", r.Held, n)
	}
	fmt.Fprintf(os.Stderr, "%d tenants: %+v\n", n, r)
	return r, nil
}

// sum adds a number of INFO over all servers.
func sum(ctx context.Context, servers []*redistest.Server, part, name string) (total float64, err error) {
	for _, s := range servers {
		info, err := s.Client().Info(ctx, part).Result()
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(info) {
			if field, text, _ := strings.Cut(strings.TrimSpace(line), ":"); field == name {
				value, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return 0, err
				}
				total += value
			}
		}
	}
	return total, nil
}
