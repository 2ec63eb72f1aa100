package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// An authzRound is how many requests a second one core is enough for, of nginx and of what it asks
// together. Internal is nginx alone, which asks itself.
type authzRound struct{ bare, keyturn, internal float64 }

func (r authzRound) ratio() float64 { return r.keyturn / r.bare }

// leastAuthz is what the project promises of /authz.
const leastAuthz = 0.90

// serveBareAuthz answers every question with 200 and these headers, as JSON.
func serveBareAuthz(headers string) error {
	var set http.Header
	if err := json.Unmarshal([]byte(headers), &set); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for name, values := range set {
			h[name] = values
		}
		w.WriteHeader(http.StatusOK)
	}))
}

// nginxConfig has one location for each of those that are asked. All serve the same file, so that only
// the question differs.
const nginxConfig = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	upstream keyturn { server {keyturn}; keepalive 64; }
	upstream bare { server {bare}; keepalive 64; }
	server {
		listen {listen};
		root www;
		auth_request_set $auth_tenant $upstream_http_x_auth_tenant;
		auth_request_set $auth_subject $upstream_http_x_auth_subject;
		auth_request_set $auth_scopes $upstream_http_x_auth_scopes;
		auth_request_set $auth_expires $upstream_http_x_auth_expires;
		auth_request_set $auth_token_id $upstream_http_x_auth_token_id;
		proxy_pass_request_body off;
		proxy_set_header Content-Length "";
		proxy_set_header Connection "";
		proxy_http_version 1.1;
		location /keyturn/ { auth_request /_keyturn; }
		location /bare/ { auth_request /_bare; }
		location /internal/ { auth_request /_internal; }
		location = /_keyturn { internal; proxy_pass http://keyturn/authz; }
		location = /_bare { internal; proxy_pass http://bare/authz; }
		location = /_internal { internal; return 204; }
	}
}
`

// startNginx starts nginx on one core, before both of those that it asks.
func startNginx(dir, keyturn, bare string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	listen := l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("{keyturn}", keyturn, "{bare}", bare, "{listen}", listen).Replace(nginxConfig)
	errs := []error{os.WriteFile(config, []byte(text), 0o600)}
	for _, name := range []string{"keyturn", "bare", "internal"} {
		folder := filepath.Join(dir, "www", name)
		errs = append(errs, os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, "file"), []byte(strings.Repeat("x", 1024)), 0o600))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	args := onOneCore("nginx", "-p", dir, "-e", "stderr", "-c", config)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, listen}
	for range 1000 {
		if c, err := net.Dial("tcp", listen); err == nil {
			return p, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.stop()
	return nil, errors.New("nginx does not listen")
}

// onOneCore returns the command line that keeps a program to the first core, where taskset is.
func onOneCore(args ...string) []string {
	if _, err := exec.LookPath("taskset"); err != nil {
		return args
	}
	return append([]string{"taskset", "-c", "0"}, args...)
}

// startOnOneCore is start on the core that nginx has too.
func startOnOneCore(program string, args ...string) (*process, error) {
	args = onOneCore(append([]string{program}, args...)...)
	return start(args[0], args[1:]...)
}

// answerHeaders returns the headers of a 200 of keyturn, as JSON, without those that every server sets.
func answerHeaders(addr string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+addr+"/authz", nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+benchToken())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("/authz answers %s", resp.Status)
	}
	resp.Header.Del("Date")
	resp.Header.Del("Content-Length")
	text, err := json.Marshal(resp.Header)
	return string(text), err
}

// runAuthz measures nginx with auth_request to keyturn, to a bare handler, and to itself.
func runAuthz(dir, self, program string, rounds, requests int) ([]authzRound, error) {
	keyturn, err := startOnOneCore(program, "serve", "--addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer keyturn.stop()
	headers, err := answerHeaders(keyturn.addr)
	if err != nil {
		return nil, err
	}
	bare, err := startOnOneCore(self, "-bare-authz", headers)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	nginx, err := startNginx(dir, keyturn.addr, bare.addr)
	if err != nil {
		return nil, err
	}
	defer nginx.stop()
	var all []authzRound
	for i := range rounds + 1 {
		perSecond, err := inTurn(3, requests, func(i, requests int) (float64, error) {
			return nginx.loadWith([]string{"/bare/file", "/keyturn/file", "/internal/file"}[i], requests, []*process{bare, keyturn, nil}[i])
		})
		if err != nil {
			return nil, err
		}
		r := authzRound{perSecond[0], perSecond[1], perSecond[2]}
		if i == 0 {
			continue // to warm up
		}
		fmt.Printf("round %d: auth_request to a bare handler %.0f/s, to /authz %.0f/s, %.0f %%; to nginx itself %.0f/s\n", i, r.bare, r.keyturn, 100*r.ratio(), r.internal)
		all = append(all, r)
	}
	return all, nil
}

// loadWith is load of a path. The processor time of another process counts too, which may be nil.
func (p *process) loadWith(path string, requests int, other *process) (perSecond float64, err error) {
	var before time.Duration
	if other != nil {
		if before, err = other.cpu(); err != nil {
			return 0, err
		}
	}
	perSecond, err = p.load(path, requests)
	if err != nil || other == nil {
		return perSecond, err
	}
	after, err := other.cpu()
	n := float64(requests / connections * connections)
	return n / (n/perSecond + (after - before).Seconds()), err
}

// authzSection returns the text for docs/benchmarks.md.
func authzSection(all []authzRound, requests int) string {
	medianOf := func(of func(authzRound) float64) float64 {
		values := make([]float64, len(all))
		for i, r := range all {
			values[i] = of(r)
		}
		slices.SortFunc(values, cmp.Compare[float64])
		return values[len(values)/2]
	}
	ratio := medianOf(authzRound.ratio)
	least := slices.MinFunc(all, func(a, b authzRound) int { return cmp.Compare(a.ratio(), b.ratio()) }).ratio()
	most := slices.MaxFunc(all, func(a, b authzRound) int { return cmp.Compare(a.ratio(), b.ratio()) }).ratio()
	verdict := "yes"
	if ratio < leastAuthz {
		verdict = "**no**"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n## Behind nginx\n\n")
	fmt.Fprintf(&b, "nginx serves a file of 1 KiB to requests that `auth_request` lets in. It asks `/authz` of `keyturn serve`,\nwhich finds the token in its cache, or a Go handler that verifies nothing and answers 200 with the same\n")
	fmt.Fprintf(&b, "headers. Connections to both stay open, and keyturn has no admin listener, so it counts nothing. nginx and what\nit asks share one core, and the processor time of both counts. Medians of %d rounds with %d requests each.\n\n", len(all), requests)
	fmt.Fprintf(&b, "| nginx asks | requests a second on one core | next to the bare handler | rounds | at least | reached |\n|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| a bare Go handler | %.0f | 100 %% | | | |\n", medianOf(func(r authzRound) float64 { return r.bare }))
	fmt.Fprintf(&b, "| `/authz` of `keyturn serve` | %.0f | %.0f %% | %.0f to %.0f %% | %.0f %% | %s |\n", medianOf(func(r authzRound) float64 { return r.keyturn }), 100*ratio, 100*least, 100*most, 100*leastAuthz, verdict)
	fmt.Fprintf(&b, "| itself: `return 204` | %.0f | | | | |\n", medianOf(func(r authzRound) float64 { return r.internal }))
	return b.String()
}
