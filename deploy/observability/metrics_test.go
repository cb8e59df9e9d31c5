package observability_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// expression is a piece of PromQL and where it stands.
type expression struct{ where, text string }

func ruleGroups(t *testing.T) []monitoringv1.RuleGroup {
	t.Helper()
	text, err := os.ReadFile("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ RefID, Expr, LegendFormat string }
}

func panels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile("grafana-board.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Panels     []panel
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	if board.UID != "chatelaine" || len(board.Panels) == 0 {
		t.Fatalf("board %q has %d panels", board.UID, len(board.Panels))
	}
	return board.Panels
}

func expressions(t *testing.T) []expression {
	t.Helper()
	var list []expression
	for _, g := range ruleGroups(t) {
		for _, r := range g.Rules {
			list = append(list, expression{"alert " + r.Alert, r.Expr.String()})
		}
	}
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			list = append(list, expression{"panel " + p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")})
		}
	}
	return list
}

// words are the string literals of the code that makes a service's metrics, with dots as
// underscores, as Prometheus has them.
var words = sync.OnceValues(func() (map[string]map[string]bool, error) {
	found := map[string]map[string]bool{}
	var problems []error
	for service, dirs := range map[string][]string{
		"authserver":  {"../../services/authserver"},
		"tokenbroker": {"../../services/tokenbroker"},
		"gateway":     {"../../services/gateway"},
		"shared":      {"../../internal"},
	} {
		found[service] = map[string]bool{}
		for _, dir := range dirs {
			problems = append(problems, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
					return err
				}
				file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
				if err != nil {
					return err
				}
				ast.Inspect(file, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						if text, err := strconv.Unquote(lit.Value); err == nil {
							found[service][strings.ReplaceAll(text, ".", "_")] = true
						}
					}
					return true
				})
				return nil
			}))
		}
	}
	return found, errors.Join(problems...)
})

// foreign are metrics that libraries make: Prometheus itself, its Go client, and
// OpenTelemetry's instrumentation of gRPC.
var foreign = map[string]bool{
	"up": true, "go_goroutines": true, "process_resident_memory_bytes": true, "process_cpu_seconds_total": true,
	"rpc_server_call_duration_seconds": true,
}

var ownName = regexp.MustCompile(`^chatelaine_(authserver|tokenbroker|gateway)_(.+)$`)

// known reports whether some service makes a metric of that name. Prometheus' name is
// OpenTelemetry's with the unit and the kind behind it.
func known(name string, words map[string]map[string]bool) bool {
	base := name
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		base = strings.TrimSuffix(base, suffix)
	}
	if foreign[base] || foreign[name] {
		return true
	}
	service, short := "shared", base
	if m := ownName.FindStringSubmatch(base); m != nil {
		service, short = m[1], m[2]
	}
	candidates := []string{base, short}
	for _, suffix := range []string{"_total", "_seconds", "_seconds_total", "_bytes"} {
		candidates = append(candidates, strings.TrimSuffix(base, suffix), strings.TrimSuffix(short, suffix))
	}
	for _, c := range candidates {
		if words[service][c] {
			return true
		}
	}
	return false
}

// libraryLabels come from Prometheus, from ServiceMonitors and from OpenTelemetry's gRPC instrumentation.
var libraryLabels = map[string]bool{
	"job": true, "instance": true, "le": true, "rpc_method": true, "rpc_response_status_code": true,
}

func TestEveryMetricAndLabelIsOneThatAServiceHas(t *testing.T) {
	t.Parallel()
	words, err := words()
	if err != nil {
		t.Fatal(err)
	}
	isLabel := func(name string) bool {
		for _, w := range words {
			if w[name] {
				return true
			}
		}
		return libraryLabels[name]
	}
	for _, e := range expressions(t) {
		parsed, err := metricsql.Parse(e.text)
		if err != nil {
			t.Errorf("%s: %v", e.where, err)
			continue
		}
		metricsql.VisitAll(parsed, func(node metricsql.Expr) {
			switch node := node.(type) {
			case *metricsql.MetricExpr:
				for _, filters := range node.LabelFilterss {
					for _, f := range filters {
						switch {
						case f.Label == "__name__" && !known(f.Value, words):
							t.Errorf("%s: no service has a metric %s", e.where, f.Value)
						case f.Label != "__name__" && !isLabel(f.Label):
							t.Errorf("%s: no metric has a label %s", e.where, f.Label)
						}
					}
				}
			case *metricsql.AggrFuncExpr:
				if !slices.Contains(aggregations, node.Name) {
					t.Errorf("%s: %s is not used in PromQL here", e.where, node.Name)
				}
				for _, label := range node.Modifier.Args {
					if !isLabel(label) {
						t.Errorf("%s: no metric has a label %s", e.where, label)
					}
				}
			case *metricsql.FuncExpr:
				if !slices.Contains(functions, node.Name) {
					t.Errorf("%s: %s is not used in PromQL here", e.where, node.Name)
				}
			}
		})
	}
}

// The parser knows more than Prometheus does; these are words of both.
var (
	functions    = []string{"absent", "histogram_quantile", "increase", "rate"}
	aggregations = []string{"max", "min", "sum"}
)

func TestEveryMetricOfOursIsExplained(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range expressions(t) {
		for _, name := range regexp.MustCompile(`chatelaine_\w+`).FindAllString(e.text, -1) {
			base := name
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !strings.Contains(string(guide), "`"+base+"`") {
				t.Errorf("%s: docs/observability.md does not say what %s is", e.where, base)
			}
		}
	}
}

func TestAMisspeltMetricIsFound(t *testing.T) {
	t.Parallel()
	words, err := words()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"chatelaine_authserver_logins_started_total":  true,
		"http_server_request_duration_seconds_bucket": true,
		"chatelaine_authserver_logins_begun_total":    false,
		"chatelaine_gateway_logins_started_total":     false, // another service's
		"http_request_duration_seconds_count":         false,
	} {
		if got := known(name, words); got != want {
			t.Errorf("%s: known = %v", name, got)
		}
	}
}

func TestEveryAlertSaysWhatIsWrongAndHowUrgentItIs(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, g := range ruleGroups(t) {
		for _, r := range g.Rules {
			switch {
			case !strings.HasPrefix(r.Alert, "Chatelaine") || names[r.Alert]:
				t.Errorf("%q: a unique name that begins with Chatelaine is needed", r.Alert)
			case r.Labels["severity"] != "page" && r.Labels["severity"] != "ticket":
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			case r.Annotations["summary"] == "" || r.Annotations["description"] == "":
				t.Errorf("%s has no summary or no description", r.Alert)
			}
			names[r.Alert] = true
		}
	}
}

func TestTheOperatorsRulesAreTheSame(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../kubernetes/components/monitoring/prometheus-rule.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rule monitoringv1.PrometheusRule
	if err := yaml.UnmarshalStrict(text, &rule); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rule.Spec.Groups, ruleGroups(t)) {
		t.Error("kubernetes/components/monitoring/prometheus-rule.yaml has other rules than rules.yaml")
	}
}

func TestThePanelsOfTheBoardDoNotOverlap(t *testing.T) {
	t.Parallel()
	taken, ids := map[string]string{}, map[int]bool{}
	for _, p := range panels(t) {
		if p.Title == "" || ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: no title, no query, or an id that another has", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				cell := fmt.Sprint(x, "/", y)
				if other := taken[cell]; other != "" || x >= 24 {
					t.Fatalf("%q is drawn over %q", p.Title, other)
				}
				taken[cell] = p.Title
			}
		}
	}
}
