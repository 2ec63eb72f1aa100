package prometheus_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/freeport"
	"github.com/keyturn/keyturn/internal/proxytest"
)

// A prom is a real Prometheus, with its data in a folder of its own.
type prom struct{ url string }

// startPrometheus starts one that scrapes targets twice a second and judges rules four times.
func startPrometheus(t *testing.T, rules string, targets ...string) *prom {
	t.Helper()
	proxytest.Need(t, "prometheus")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules.yml"), rules)
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 250ms}
rule_files: [rules.yml]
scrape_configs:
  - job_name: keyturn
    authorization: {credentials: prometheus-own-token}
    static_configs: [{targets: ["%s"]}]
`, strings.Join(targets, `", "`)))
	at := freeAddr(t)
	start(t, dir, "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+at, "--log.level=warn")
	p := &prom{"http://" + at}
	eventually(t, "Prometheus is ready", func() bool {
		r, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return p
}

// A sample is a point of a series: its time and value.
type sample struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

// ask asks Prometheus, and decodes data.
func (p *prom) ask(t *testing.T, path string, query url.Values, data any) {
	t.Helper()
	r, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %s: %v %s", path, query, err, answer.Error)
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		t.Fatal(err)
	}
}

// query returns what an expression has now.
func (p *prom) query(t *testing.T, expr string) []sample {
	t.Helper()
	var data struct{ Result []sample }
	p.ask(t, "/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result
}

// states returns the state of each alert now.
func (p *prom) states(t *testing.T) map[string]string {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, State, LastError string }
		}
	}
	p.ask(t, "/api/v1/rules", nil, &data)
	all := make(map[string]string)
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.LastError != "" {
				t.Fatalf("%s: %s", r.Name, r.LastError)
			}
			all[r.Name] = r.State
		}
	}
	return all
}

// await waits until an alert is in a state.
func (p *prom) await(t *testing.T, alert, state string) {
	t.Helper()
	eventually(t, alert+" is "+state, func() bool { return p.states(t)[alert] == state })
	t.Logf("%s: %s is %s", time.Now().Format("15:04:05.0"), alert, state)
}

// since returns when an alert was first in a state, as Prometheus has recorded it.
func (p *prom) since(t *testing.T, alert, state string) (first time.Time) {
	t.Helper()
	expr := fmt.Sprintf(`ALERTS{alertname=%q,alertstate=%q}[1h]`, alert, state)
	for _, s := range p.query(t, expr) {
		for _, v := range s.Values {
			at := time.UnixMilli(int64(v[0].(float64) * 1000))
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	return first
}

// start runs a program in a folder until the test ends, and shows what it said if the test has failed.
func start(t *testing.T, dir, program string, args ...string) *exec.Cmd {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text, err := os.ReadFile(out.Name()); t.Failed() && err == nil {
			said := regexp.MustCompile(`(?m)^.*request refused.*\n`).ReplaceAll(text, nil)
			t.Logf("%s said:\n%s", filepath.Base(program), said[:min(len(said), 20_000)])
		}
	})
	return cmd
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// freeAddr returns a loopback address that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// eventually waits up to two minutes until ok. The machine may be busy.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come about that %s", what)
		}
	}
}

// number returns the value of a sample.
func (s sample) number(t *testing.T) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s.Value[1].(string), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
