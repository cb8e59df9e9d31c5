package kubernetes_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// endpoint is a place that a packet comes from or goes to.
type endpoint struct {
	namespace map[string]string // its namespace's labels; nil outside of the cluster
	pod       map[string]string
	name      string
}

var (
	ownNamespace = map[string]string{"kubernetes.io/metadata.name": "own"}
	ingress      = endpoint{map[string]string{"chatelaine.dev/ingress": "true"}, map[string]string{"app": "proxy"}, "ingress"}
	monitoring   = endpoint{map[string]string{"chatelaine.dev/monitoring": "true"}, map[string]string{"app": "prometheus"}, "monitoring"}
	collector    = endpoint{map[string]string{"chatelaine.dev/collector": "true"}, map[string]string{"app": "collector"}, "collector"}
	stranger     = endpoint{map[string]string{"kubernetes.io/metadata.name": "other"}, map[string]string{"app": "other"}, "stranger"}
	neighbour    = endpoint{ownNamespace, map[string]string{"app": "neighbour"}, "neighbour"}
	operator     = endpoint{ownNamespace, map[string]string{"chatelaine.dev/operator": "true"}, "operator"}
	clientPod    = endpoint{ownNamespace, map[string]string{"chatelaine.dev/client": "true"}, "client"}
)

func inOwnNamespace(e endpoint) bool { return maps.Equal(e.namespace, ownNamespace) }

// peers reports whether one of the peers is the endpoint. Blocks of addresses are
// for outside and are looked at by TestWaysOut.
func peers(t *testing.T, list []networkingv1.NetworkPolicyPeer, e endpoint) bool {
	t.Helper()
	return len(list) == 0 || slices.ContainsFunc(list, func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil {
			return false
		}
		inNamespace := inOwnNamespace(e)
		if p.NamespaceSelector != nil {
			inNamespace = matches(t, p.NamespaceSelector, e.namespace)
		}
		return inNamespace && (p.PodSelector == nil || matches(t, p.PodSelector, e.pod))
	})
}

func port(list []networkingv1.NetworkPolicyPort, want int32) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(p networkingv1.NetworkPolicyPort) bool {
		return p.Port == nil || p.Port.IntVal == want && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP)
	})
}

// allowed evaluates the policies as a cluster that enforces them would: both ends must agree.
func allowed(t *testing.T, m *manifests, from, to endpoint, number int32) bool {
	t.Helper()
	return oneWay(t, m, from, networkingv1.PolicyTypeEgress, func(p *networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(p.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
			return peers(t, r.To, to) && port(r.Ports, number)
		})
	}) && oneWay(t, m, to, networkingv1.PolicyTypeIngress, func(p *networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(p.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool {
			return peers(t, r.From, from) && port(r.Ports, number)
		})
	})
}

// oneWay is about one end: without a policy for it everything goes, else what one allows.
func oneWay(t *testing.T, m *manifests, end endpoint, direction networkingv1.PolicyType, allows func(*networkingv1.NetworkPolicy) bool) bool {
	t.Helper()
	if !inOwnNamespace(end) {
		return true // not ours to say
	}
	selected := false
	for _, p := range all[networkingv1.NetworkPolicy](m) {
		if slices.Contains(p.Spec.PolicyTypes, direction) && matches(t, &p.Spec.PodSelector, end.pod) {
			selected = true
			if allows(p) {
				return true
			}
		}
	}
	return !selected
}

// ours are the edges of the house, the same in every installation.
var ours = []string{
	"ingress → authserver:8080", "ingress → gateway:8000",
	"authserver → tokenbroker:9090", "gateway → tokenbroker:9090", "tokenbroker → authserver:8082",
	"operator → tokenbroker:9090", "operator → tokenbroker:9091",
	"monitoring → authserver:8081", "monitoring → tokenbroker:9092", "monitoring → gateway:8001",
}

// tracing are those that the component opens.
var tracing = []string{"authserver → collector:4317", "tokenbroker → collector:4317", "gateway → collector:4317"}

// theDemos are those of the demo's world.
var theDemos = []string{
	"tokenbroker → authserver:8080", "gateway → authserver:8080", // keys, where the public URL leads nowhere
	"authserver → postgres:5432", "tokenbroker → postgres:5432", "authserver-migrate → postgres:5432", "tokenbroker-migrate → postgres:5432",
	"tokenbroker → corp:5556", "tokenbroker → octohub:5557",
	"gateway → repos:7001", "gateway → payroll:7002", "gateway → status:7003",
	"repos → octohub:5557", "payroll → corp:5556",
	"status → corp:5556", "status → octohub:5557", "status → repos:7001", "status → payroll:7002",
	"client → authserver:8080", "client → gateway:8000", "client → corp:5556", "client → octohub:5557",
}

func TestOnlyTheEdgesThatTheServicesUseAreOpen(t *testing.T) {
	t.Parallel()
	for variant, want := range map[string][]string{
		"overlays/production": ours,
		"overlays/demo":       slices.Concat(ours, theDemos),
		"variants/everything": slices.Concat(ours, tracing),
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			m := build(t, variant)
			ends := []endpoint{ingress, monitoring, collector, stranger, neighbour, operator}
			if variant == "overlays/demo" {
				ends = append(ends, clientPod)
			}
			ports := map[string][]int32{"collector": {4317}}
			for _, w := range workloads(m) {
				name := w.template.Labels["app.kubernetes.io/name"]
				ends = append(ends, endpoint{ownNamespace, w.template.Labels, name})
				for _, c := range w.template.Spec.Containers {
					for _, p := range c.Ports {
						ports[name] = append(ports[name], p.ContainerPort)
					}
				}
			}
			open := map[string]bool{}
			for _, from := range ends {
				for _, to := range ends {
					for _, number := range ports[to.name] {
						foreign := to.name == collector.name && !inOwnNamespace(from) // not ours to say
						if from.name != to.name && !foreign && allowed(t, m, from, to, number) {
							open[fmt.Sprintf("%s → %s:%d", from.name, to.name, number)] = true
						}
					}
				}
			}
			for _, edge := range want {
				if !open[edge] {
					t.Errorf("closed, and needed: %s", edge)
				}
				delete(open, edge)
			}
			for _, edge := range slices.Sorted(maps.Keys(open)) {
				t.Errorf("open, and not needed: %s", edge)
			}
		})
	}
}

// TestWaysOutOfProduction: who may leave the namespace, and by which port.
func TestWaysOutOfProduction(t *testing.T) {
	t.Parallel()
	m := build(t, "overlays/production")
	want := map[string][]int32{
		"authserver": {5432}, "authserver-migrate": {5432}, "tokenbroker-migrate": {5432},
		"tokenbroker": {443, 5432}, "gateway": {443},
	}
	for _, w := range workloads(m) {
		name := w.template.Labels["app.kubernetes.io/name"]
		var got []int32
		for _, p := range all[networkingv1.NetworkPolicy](m) {
			if !matches(t, &p.Spec.PodSelector, w.template.Labels) {
				continue
			}
			for _, rule := range p.Spec.Egress {
				for _, to := range rule.To {
					if to.IPBlock == nil {
						continue
					}
					for _, p := range rule.Ports {
						got = append(got, p.Port.IntVal)
					}
					// The metadata services of clouds hand out credentials.
					if to.IPBlock.CIDR == "0.0.0.0/0" && !slices.Contains(to.IPBlock.Except, "169.254.0.0/16") {
						t.Errorf("%s reaches link-local addresses", name)
					}
				}
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want[name]) {
			t.Errorf("%s leaves by ports %v, want %v", name, got, want[name])
		}
	}
}
