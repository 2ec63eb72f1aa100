// Command scale measures a keyring of many tenants on real redis-servers on loopback: how long it takes
// to open, what a tenant costs in memory here and in Redis, and what a poll costs when nothing changed.
// It writes the table of docs/scale.md between its marks. make scale runs it.
//
// Each keyring is opened by a process of its own, so that nothing else is in its memory.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
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
		n, err := strconv.Atoi(text)
		if text == "" {
			continue
		}
		if err != nil {
			return err
		}
		server, err := redistest.Start(redistest.Options{})
		if err != nil {
			return err
		}
		r, err := measure(ctx, n, []*redistest.Server{server}, "redis://"+server.Addr(), o)
		if err = errors.Join(err, server.Stop()); err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if large > 0 {
		r, err := measureCluster(ctx, large, o)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	return write(md, table(rows))
}

// measureCluster measures a Cluster of three.
func measureCluster(ctx context.Context, n int, o openOptions) (row, error) {
	cluster, err := redistest.StartCluster(redistest.Options{})
	if err != nil {
		return row{}, err
	}
	r, err := measure(ctx, n, cluster.Servers, "redis-cluster://"+strings.Join(cluster.Addrs(), ","), o)
	return r, errors.Join(err, cluster.Stop())
}

// A row is the figures of one size.
type row struct {
	Tenants, Servers int
	RedisBytes       float64 // of memory a ring
	figures
}

// measure fills the servers with n rings, and lets another process open them.
func measure(ctx context.Context, n int, servers []*redistest.Server, url string, o openOptions) (row, error) {
	before, err := used(ctx, servers)
	if err != nil {
		return row{}, err
	}
	if err := fill(ctx, n, url); err != nil {
		return row{}, fmt.Errorf("filling with %d rings: %w", n, err)
	}
	after, err := used(ctx, servers)
	if err != nil {
		return row{}, err
	}
	r := row{Tenants: n, Servers: len(servers), RedisBytes: (after - before) / float64(n)}
	if r.figures, err = openElsewhere(ctx, n, url, o); err != nil {
		return row{}, fmt.Errorf("opening %d rings: %w", n, err)
	}
	fmt.Fprintf(os.Stderr, "%d tenants: %+v\n", n, r)
	return r, nil
}

// openElsewhere opens a keyring in another process.
func openElsewhere(ctx context.Context, n int, url string, o openOptions) (f figures, err error) {
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-open", url}, o.profiles(n)...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return f, err
	}
	if f.Held != n {
		return f, fmt.Errorf("%d rings are held", f.Held)
	}
	return f, nil
}

// used returns the bytes that all servers use.
func used(ctx context.Context, servers []*redistest.Server) (total float64, err error) {
	for _, s := range servers {
		info, err := s.Client().Info(ctx, "memory").Result()
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(info) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
				bytes, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return 0, err
				}
				total += bytes
			}
		}
	}
	return total, nil
}
