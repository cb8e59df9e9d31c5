package kubernetes_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	psaapi "k8s.io/pod-security-admission/api"
	psapolicy "k8s.io/pod-security-admission/policy"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/telemetry"
)

func TestEveryPodMeetsTheRestrictedStandard(t *testing.T) {
	evaluator, err := psapolicy.NewEvaluator(psapolicy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for _, w := range workloads(m) {
			for _, r := range evaluator.EvaluatePod(restricted, &w.template.ObjectMeta, &w.template.Spec) {
				if !r.Allowed {
					t.Errorf("%s %s: %s: %s", w.kind, w.name, r.ForbiddenReason, r.ForbiddenDetail)
				}
			}
		}
		for name, ns := range all[corev1.Namespace](m) {
			if got := ns.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
				t.Errorf("namespace %s enforces %q", name, got)
			}
			for _, w := range workloads(m) {
				if w.namespace != name {
					t.Errorf("%s %s is in namespace %s, outside of %s and its standard", w.kind, w.name, w.namespace, name)
				}
			}
		}
	})
}

func TestNoPodHoldsATokenOfTheCluster(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		accounts := all[corev1.ServiceAccount](m)
		for _, w := range workloads(m) {
			spec := w.template.Spec
			account := accounts[spec.ServiceAccountName]
			if account == nil {
				t.Errorf("%s %s: there is no ServiceAccount %q", w.kind, w.name, spec.ServiceAccountName)
				continue
			}
			for of, automount := range map[string]*bool{"pod": spec.AutomountServiceAccountToken, "account": account.AutomountServiceAccountToken} {
				if automount == nil || *automount {
					t.Errorf("%s %s: its %s mounts a token", w.kind, w.name, of)
				}
			}
			if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
				t.Errorf("%s %s: Services are put into its environment, where flags have their twins", w.kind, w.name)
			}
			for _, c := range spec.Containers {
				if ro := c.SecurityContext.ReadOnlyRootFilesystem; ro == nil || !*ro {
					t.Errorf("%s %s: its root file system can be written", w.kind, w.name)
				}
			}
		}
	})
}

func TestEveryContainerHasBoundsAndAPinnedImage(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for _, w := range workloads(m) {
			for _, c := range w.template.Spec.Containers {
				for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					request, limit := c.Resources.Requests[r], c.Resources.Limits[r]
					if request.IsZero() || limit.Cmp(request) < 0 {
						t.Errorf("%s %s: %s: request %s, limit %s", w.kind, w.name, r, request.String(), limit.String())
					}
				}
				if _, tag, ok := strings.Cut(c.Image, ":"); !ok || tag == "latest" {
					t.Errorf("%s %s: image %q has no tag of its own", w.kind, w.name, c.Image)
				}
			}
		}
	})
}

// adminPaths are what a service answers on its admin port.
func adminPaths(t *testing.T, path string) int {
	t.Helper()
	handler := telemetry.Discard().AdminHandler(telemetry.NewHealth(nil))
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code
}

func TestProbesAskWhatTheServiceAnswers(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for _, service := range services {
			c := container(t, m, service)
			for name, probe := range map[string]struct {
				*corev1.Probe
				path string
			}{
				"startup": {c.StartupProbe, "/healthz"}, "readiness": {c.ReadinessProbe, "/readyz"}, "liveness": {c.LivenessProbe, "/healthz"},
			} {
				if probe.Probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != probe.path || probe.HTTPGet.Port.StrVal != "admin" {
					t.Errorf("%s: the %s probe does not ask %s on the admin port", service, name, probe.path)
					continue
				}
				if code := adminPaths(t, probe.HTTPGet.Path); code != http.StatusOK {
					t.Errorf("a healthy service answers %d at %s", code, probe.HTTPGet.Path)
				}
				// Readiness checks may take this long, and a slow answer is an answer.
				if name == "readiness" && time.Duration(probe.TimeoutSeconds)*time.Second <= telemetry.CheckTimeout {
					t.Errorf("%s: the %s probe gives up after %d s, before the service's own %s", service, name, probe.TimeoutSeconds, telemetry.CheckTimeout)
				}
			}
			if c.Lifecycle != nil {
				t.Errorf("%s: the image has nothing that a hook could run", service)
			}
		}
	})
}

// renewals is how long the broker waits, after everything else, for attempts that
// are in flight at providers.
func renewals(t *testing.T) time.Duration {
	t.Helper()
	source, err := os.ReadFile("../../services/tokenbroker/internal/refresh/background.go")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`\bdrainWithin = (\d+) \* time\.Second\b`).FindSubmatch(source)
	if m == nil {
		t.Fatal("the broker's wait for renewals in flight is not where this test looks for it")
	}
	return time.Duration(atoi(t, string(m[1]))) * time.Second
}

func TestARunningRequestOrRenewalOutlivesItsPodsStop(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for _, service := range services {
			d, c := all[appsv1.Deployment](m)[service], container(t, m, service)
			var drain cli.Drain
			for name, value := range map[string]*time.Duration{"drain-delay": &drain.DrainDelay, "drain-timeout": &drain.DrainTimeout} {
				text, given := flag(c, name)
				if !given {
					t.Errorf("%s: --%s is not set", service, name)
					continue
				}
				var err error
				if *value, err = time.ParseDuration(text); err != nil {
					t.Fatal(err)
				}
			}
			needed := drain.StopTimeout()
			if service == "tokenbroker" {
				needed += renewals(t)
			}
			if grace := time.Duration(*d.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= needed {
				t.Errorf("%s is killed after %s and needs %s", service, grace, needed)
			}
			rolling := d.Spec.Strategy.RollingUpdate
			if rolling == nil || rolling.MaxUnavailable.IntValue() != 0 || rolling.MaxSurge.IntValue() < 1 {
				t.Errorf("%s: an update takes a replica away before its successor is ready", service)
			}
		}
	})
}

func TestReplicasOfOurServicesCanBeLostAndMoved(t *testing.T) {
	t.Parallel()
	m := build(t, "overlays/production")
	budgets, scalers := all[policyv1.PodDisruptionBudget](m), all[autoscalingv2.HorizontalPodAutoscaler](m)
	for _, service := range services {
		d := all[appsv1.Deployment](m)[service]
		if d.Spec.Replicas != nil {
			t.Errorf("%s: replicas are set, which takes back what the autoscaler did at every apply", service)
		}
		if h := scalers[service]; h == nil || h.Spec.ScaleTargetRef.Name != service || *h.Spec.MinReplicas < 2 || h.Spec.MaxReplicas <= *h.Spec.MinReplicas {
			t.Errorf("%s: no autoscaler keeps two replicas", service)
		}
		b := budgets[service]
		if b == nil || b.Spec.MaxUnavailable.IntValue() != 1 || !matches(t, b.Spec.Selector, d.Spec.Template.Labels) {
			t.Errorf("%s: no disruption budget keeps all but one", service)
		}
		spread := d.Spec.Template.Spec.TopologySpreadConstraints
		if len(spread) != 2 || !matches(t, spread[0].LabelSelector, d.Spec.Template.Labels) || !matches(t, spread[1].LabelSelector, d.Spec.Template.Labels) {
			t.Errorf("%s: replicas are not spread over zones and nodes", service)
		}
	}
}

// TestPostgresCanTakeAllReplicas counts what the largest deployment connects.
func TestPostgresCanTakeAllReplicas(t *testing.T) {
	t.Parallel()
	const allowed = 100 - 3 // max_connections and superuser_reserved_connections, as Postgres comes
	m := build(t, "overlays/production")
	total := 0
	for service, listening := range map[string]int{"authserver": 0, "tokenbroker": 1} {
		value, ok := flag(container(t, m, service), "database-max-conns")
		if !ok {
			t.Fatalf("%s: --database-max-conns is not set", service)
		}
		perReplica := atoi(t, value) + listening
		total += perReplica * int(all[autoscalingv2.HorizontalPodAutoscaler](m)[service].Spec.MaxReplicas+1) // one that replaces another
	}
	if total > allowed {
		t.Errorf("at most, %d connections are opened, and Postgres takes %d", total, allowed)
	}
}

func matches(t *testing.T, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(set))
}
