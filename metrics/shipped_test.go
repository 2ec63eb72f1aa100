package metrics_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A dashboard is the part of Grafana's JSON that these tests judge.
type dashboard struct {
	Title, UID string
	Templating struct {
		List []struct {
			Name, Type string
			Multi      bool
			Datasource *struct{ UID string }
			Query      string
		}
	}
	Panels []struct {
		ID                 int
		Title, Description string
		Type               string
		Datasource         struct{ Type, UID string }
		FieldConfig        struct{ Defaults struct{ Unit string } }
		GridPos            struct{ H, W, X, Y int }
		Targets            []struct {
			Expr, LegendFormat string
			Datasource         struct{ UID string }
		}
	}
}

// A ruleFile is docs/prometheus/rules.yml.
type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func shipped[T any](t *testing.T, name string, unmarshal func([]byte, any) error) (v T) {
	t.Helper()
	text, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func shippedDashboard(t *testing.T) dashboard {
	return shipped[dashboard](t, "grafana/keyturn.json", json.Unmarshal)
}

func shippedRules(t *testing.T) ruleFile {
	return shipped[ruleFile](t, "prometheus/rules.yml", func(b []byte, v any) error { return yaml.Unmarshal(b, v) })
}

// shippedQueries returns the queries of the dashboard and of the alerts.
func shippedQueries(t *testing.T) (all []string) {
	t.Helper()
	for _, p := range shippedDashboard(t).Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, g := range shippedRules(t).Groups {
		for _, r := range g.Rules {
			all = append(all, r.Expr)
		}
	}
	return all
}

// The rules of Grafana's own linter for dashboards, and ours: who opens it at night reads what to do.
func TestDashboard(t *testing.T) {
	d := shippedDashboard(t)
	if d.UID != "keyturn" || d.Title != "keyturn" {
		t.Errorf("its uid is %q and its title %q: links to it would break", d.UID, d.Title)
	}
	if len(d.Panels) != 19 {
		t.Errorf("%d panels", len(d.Panels))
	}
	variables := make(map[string]string)
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
		if v.Type == "query" && (!v.Multi || v.Datasource.UID != "${datasource}" || !strings.Contains(v.Query, "keyturn_build_info")) {
			t.Errorf("the variable %s: %+v", v.Name, v)
		}
	}
	if want := map[string]string{"datasource": "datasource", "job": "query", "instance": "query"}; !maps.Equal(variables, want) {
		t.Errorf("variables = %v, want %v", variables, want)
	}
	ids, titles := make(map[int]bool), make(map[string]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || titles[p.Title] || p.Title == "" {
			t.Errorf("%d %q is there twice", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if len(strings.Fields(p.Description)) < 15 {
			t.Errorf("%s: the description does not say what to do: %q", p.Title, p.Description)
		}
		if p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || p.Datasource.Type != "prometheus" {
			t.Errorf("%s: no unit, or a data source of one Grafana alone", p.Title)
		}
		if len(p.Targets) == 0 || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: no query, or no place", p.Title)
		}
		for _, q := range p.Targets {
			if q.LegendFormat == "" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %s has no legend, or a data source of one Grafana alone", p.Title, q.Expr)
			}
			checkPanelQuery(t, p.Title, q.Expr)
		}
	}
}

var (
	selector = regexp.MustCompile(`keyturn_[a-z_]+\{[^}]*\}`)
	metric   = regexp.MustCompile(`keyturn_[a-z_]+`)
	windowed = regexp.MustCompile(`\[[^\]]*\]`)
)

func checkPanelQuery(t *testing.T, title, expr string) {
	t.Helper()
	if len(selector.FindAllString(expr, -1)) != len(metric.FindAllString(expr, -1)) {
		t.Errorf("%s: %s has a metric without a selector", title, expr)
	}
	for _, s := range selector.FindAllString(expr, -1) {
		if !strings.Contains(s, `job=~"$job"`) || !strings.Contains(s, `instance=~"$instance"`) {
			t.Errorf("%s: %s does not follow the variables", title, s)
		}
	}
	for _, w := range windowed.FindAllString(expr, -1) {
		if w != "[$__rate_interval]" {
			t.Errorf("%s: %s has the window %s", title, expr, w)
		}
	}
	for _, m := range metric.FindAllString(expr, -1) {
		if strings.HasSuffix(m, "_total") && !regexp.MustCompile(`(rate|increase)\(`+m).MatchString(expr) {
			t.Errorf("%s: %s shows a counter itself", title, expr)
		}
	}
}

// Each metric that a query names is one of the page.
func TestQueriesNameMetricsOfThePage(t *testing.T) {
	for _, expr := range shippedQueries(t) {
		for _, m := range metric.FindAllString(expr, -1) {
			if m = strings.TrimSuffix(m, "_bucket"); families[m] == "" {
				t.Errorf("%s names %s, which is no metric", expr, m)
			}
		}
	}
}

var runbook = regexp.MustCompile(`^https://github\.com/keyturn/keyturn/blob/main/docs/operations\.md#([a-z0-9-]+)$`)

// The page that an alert opens has a section with what to type, and docs/monitoring.md explains it.
func TestAlertsLeadToARunbook(t *testing.T) {
	sections, explained := headings(t, "../docs/operations.md"), headings(t, "../docs/monitoring.md")
	var names []string
	for _, g := range shippedRules(t).Groups {
		for _, r := range g.Rules {
			names = append(names, r.Alert)
			m := runbook.FindStringSubmatch(r.Annotations["runbook_url"])
			if m == nil {
				t.Errorf("%s: %s is no runbook", r.Alert, r.Annotations["runbook_url"])
				continue
			}
			text, ok := sections[m[1]]
			if !ok || !strings.Contains(text, "```sh\n") {
				t.Errorf("%s: the section %s of docs/operations.md is there: %v, and has nothing to type", r.Alert, m[1], ok)
			}
			if _, ok := explained[strings.ToLower(r.Alert)]; !ok {
				t.Errorf("docs/monitoring.md does not explain %s", r.Alert)
			}
			if r.For == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: no duration, summary or description", r.Alert)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			}
		}
	}
	if len(names) != 11 {
		t.Errorf("%d alerts: %q", len(names), names)
	}
}

// headings returns the sections of a page by anchor, each with those below it.
func headings(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	type open struct {
		level  int
		anchor string
	}
	all := make(map[string]string)
	var path []open
	code := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "```") || strings.HasPrefix(line, "   ```") {
			code, line = !code, strings.TrimLeft(line, " ")
		}
		if title := strings.TrimLeft(line, "#"); !code && title != line {
			level := len(line) - len(title)
			for len(path) > 0 && path[len(path)-1].level >= level {
				path = path[:len(path)-1]
			}
			anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			path = append(path, open{level, strings.ReplaceAll(anchor, " ", "-")})
		}
		for _, p := range path {
			all[p.anchor] += line
		}
	}
	return all
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	promtool(t, "", "check", "rules", "../docs/prometheus/rules.yml")
	if out := promtool(t, "", "test", "rules", "../docs/prometheus/tests.yml"); !strings.Contains(out, "SUCCESS") {
		t.Error(out)
	}
}

// Each alert has a test of its durations.
func TestEachAlertIsTested(t *testing.T) {
	text, err := os.ReadFile("../docs/prometheus/tests.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range shippedRules(t).Groups {
		for _, r := range g.Rules {
			if !strings.Contains(string(text), "- name: "+r.Alert+"\n") {
				t.Errorf("docs/prometheus/tests.yml does not test %s", r.Alert)
			}
		}
	}
}
