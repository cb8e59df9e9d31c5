package kubernetes_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"chatelaine.dev/internal/config"
)

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEveryFlagIsOneOfTheService asks the programs themselves.
func TestEveryFlagIsOneOfTheService(t *testing.T) {
	t.Parallel()
	m := build(t, "variants/everything")
	check := func(service, command string, args []string, env []corev1.EnvVar) {
		out, err := exec.CommandContext(t.Context(), "go", "-C", "../../services/"+service, "run", "./cmd/"+service, command, "--help").CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s --help: %v\n%s", service, command, err, out)
		}
		for _, arg := range args[1:] {
			name, _, _ := strings.Cut(arg, "=")
			if !bytes.Contains(out, []byte(" "+name+"=")) {
				t.Errorf("%s %s has no flag %s", service, command, name)
			}
		}
		for _, v := range env {
			known := bytes.Contains(out, []byte("$"+v.Name+")")) || v.Name == "CHATELAINE_SECRETS_DIR" || v.Name == "GOMEMLIMIT"
			if !known {
				t.Errorf("%s %s does not know %s", service, command, v.Name)
			}
		}
	}
	for _, service := range services {
		c := container(t, m, service)
		check(service, c.Args[0], c.Args, c.Env)
		if job := all[batchv1.Job](m)[service+"-migrate"]; job != nil {
			c := job.Spec.Template.Spec.Containers[0]
			check(service, c.Args[0], c.Args, c.Env)
		}
	}
}

// secretRefs walks a resource for {name, key} under a field …SecretRef(s), and for caBundleRef.
func secretRefs(node any, field string, found map[string][]string) {
	switch node := node.(type) {
	case map[string]any:
		name, isName := node["name"].(string)
		key, isKey := node["key"].(string)
		if isName && isKey && strings.Contains(field, "SecretRef") {
			found[field] = append(found[field], name+"/"+key)
		}
		for f, child := range node {
			secretRefs(child, f, found)
		}
	case []any:
		for _, child := range node {
			secretRefs(child, field, found)
		}
	}
}

// owners says which service reads the secrets of a field; the broker reads all others.
var owners = map[string]string{"signingKeySecretRefs": "authserver", "hmacSecretRefs": "authserver"}

func TestEverySecretIsWhereItsServiceLooks(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		refs := map[string][]string{}
		text := all[corev1.ConfigMap](m)["chatelaine-resources"].Data["resources.yaml"]
		for document := range strings.SplitSeq(text, "\n---\n") {
			var node any
			if err := yaml.Unmarshal([]byte(document), &node); err != nil {
				t.Fatal(err)
			}
			found := map[string][]string{}
			secretRefs(node, "", found)
			for field, list := range found {
				owner := owners[field]
				if owner == "" {
					owner = "tokenbroker"
				}
				refs[owner] = append(refs[owner], list...)
			}
		}
		for service, name := range map[string]string{"tokenbroker": "key-encryption-key", "gateway": "session-key"} {
			value, _ := flag(container(t, m, service), name)
			refs[service] = append(refs[service], value)
		}
		generated := all[corev1.Secret](m)
		for _, service := range services {
			spec := all[appsv1.Deployment](m)[service].Spec.Template.Spec
			for _, ref := range refs[service] {
				name, key, _ := strings.Cut(ref, "/")
				mount := slices.IndexFunc(spec.Containers[0].VolumeMounts, func(v corev1.VolumeMount) bool {
					return v.MountPath == "/etc/chatelaine/secrets/"+name && v.ReadOnly
				})
				if mount < 0 {
					t.Errorf("%s: secret %s is not mounted", service, ref)
					continue
				}
				volume := spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == spec.Containers[0].VolumeMounts[mount].Name })]
				if s := generated[volume.Secret.SecretName]; len(generated) > 0 && (s == nil || len(s.Data[key]) == 0) {
					t.Errorf("%s: the Secret %s has no %s", service, volume.Secret.SecretName, key)
				}
			}
			secretsMounted := 0
			for _, v := range spec.Containers[0].VolumeMounts {
				if strings.HasPrefix(v.MountPath, "/etc/chatelaine/secrets/") {
					secretsMounted++
				}
			}
			names := map[string]bool{}
			for _, ref := range refs[service] {
				name, _, _ := strings.Cut(ref, "/")
				names[name] = true
			}
			if variantNeedsOnly := secretsMounted > len(names); variantNeedsOnly && len(generated) == 0 {
				t.Errorf("%s holds %d secrets and needs %d", service, secretsMounted, len(names))
			}
		}
	})
}

func TestTheResourcesAreValid(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		path := filepath.Join(t.TempDir(), "resources.yaml")
		if err := os.WriteFile(path, []byte(all[corev1.ConfigMap](m)["chatelaine-resources"].Data["resources.yaml"]), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if ok, err := config.CheckPath(path, &out); err != nil || !ok || strings.Contains(out.String(), "warning[") {
			t.Errorf("%v\n%s", err, out.String())
		}
	})
}

func TestTheDemosResourcesAreThoseOfMakeUp(t *testing.T) {
	t.Parallel()
	here, err := os.ReadFile("components/world/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadFile("../../examples/stack/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(here, there) {
		t.Error("copy examples/stack/resources.yaml to components/world/resources.yaml")
	}
}

func TestEveryServiceLeadsToAPort(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for name, s := range all[corev1.Service](m) {
			w := slices.IndexFunc(workloads(m), func(w workload) bool {
				return w.kind != "Job" && labelsMatch(s.Spec.Selector, w.template.Labels)
			})
			if w < 0 {
				t.Errorf("Service %s selects no pod", name)
				continue
			}
			for _, p := range s.Spec.Ports {
				target := workloads(m)[w].template.Spec.Containers[0].Ports
				if !slices.ContainsFunc(target, func(c corev1.ContainerPort) bool { return c.Name == p.TargetPort.StrVal }) {
					t.Errorf("Service %s: port %s leads to %q, which no container opens", name, p.Name, p.TargetPort.StrVal)
				}
			}
			for _, w := range workloads(m) {
				if w.kind == "Job" && labelsMatch(s.Spec.Selector, w.template.Labels) {
					t.Errorf("Service %s sends requests to the pods of Job %s", name, w.name)
				}
			}
		}
	})
}

func labelsMatch(selector, set map[string]string) bool {
	for k, v := range selector {
		if set[k] != v {
			return false
		}
	}
	return true
}

// TestCallsBetweenServicesReachEveryReplica: one address would tie a gRPC client to the
// replica of its first connection.
func TestCallsBetweenServicesReachEveryReplica(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		for service, name := range map[string]string{"authserver": "broker-address", "gateway": "broker-address", "tokenbroker": "authserver-address"} {
			address, _ := flag(container(t, m, service), name)
			host, number, _ := strings.Cut(address, ":")
			s := all[corev1.Service](m)[host]
			if s == nil || s.Spec.ClusterIP != corev1.ClusterIPNone || s.Spec.PublishNotReadyAddresses {
				t.Errorf("%s: --%s=%s is no headless Service of ready pods", service, name, address)
				continue
			}
			if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == int32(atoi(t, number)) && p.Name == "grpc" }) {
				t.Errorf("%s: Service %s has no gRPC port %s", service, host, number)
			}
		}
	})
}

// TestOnlyTheTwoPublicPortsAreExposed holds for the Ingress and for the Gateway API.
func TestOnlyTheTwoPublicPortsAreExposed(t *testing.T) {
	forEachVariant(t, func(t *testing.T, m *manifests) {
		public := map[string]int32{"authserver": 8080, "gateway": 8000}
		for name, i := range all[networkingv1.Ingress](m) {
			if len(i.Spec.TLS) != 1 || i.Spec.TLS[0].SecretName == "" || i.Spec.DefaultBackend != nil {
				t.Errorf("Ingress %s ends no TLS, or takes whatever comes", name)
			}
			for _, r := range i.Spec.Rules {
				if !slices.Contains(i.Spec.TLS[0].Hosts, r.Host) {
					t.Errorf("Ingress %s: %s has no certificate", name, r.Host)
				}
				for _, p := range r.HTTP.Paths {
					if b := p.Backend.Service; public[b.Name] == 0 || b.Port.Name != "http" {
						t.Errorf("Ingress %s exposes %s %s", name, b.Name, b.Port.Name)
					}
				}
			}
		}
		for name, r := range all[gatewayv1.HTTPRoute](m) {
			for _, rule := range r.Spec.Rules {
				for _, b := range rule.BackendRefs {
					if b.Port == nil || public[string(b.Name)] != *b.Port {
						t.Errorf("HTTPRoute %s exposes %s", name, b.Name)
					}
				}
			}
		}
		for name, g := range all[gatewayv1.Gateway](m) {
			for _, l := range g.Spec.Listeners {
				if l.Protocol != gatewayv1.HTTPSProtocolType || l.TLS == nil || len(l.TLS.CertificateRefs) != 1 {
					t.Errorf("Gateway %s: listener %s has no TLS", name, l.Name)
				}
			}
		}
		for name, s := range all[corev1.Service](m) {
			if s.Spec.Type != "" && s.Spec.Type != corev1.ServiceTypeClusterIP {
				t.Errorf("Service %s is reachable from outside: %s", name, s.Spec.Type)
			}
		}
	})
}

func TestPrometheusFindsEveryService(t *testing.T) {
	t.Parallel()
	m := build(t, "variants/everything")
	found := map[string]bool{}
	for name, monitor := range all[monitoringv1.ServiceMonitor](m) {
		for _, s := range all[corev1.Service](m) {
			if !matches(t, &monitor.Spec.Selector, s.Labels) {
				continue
			}
			found[name] = true
			for _, e := range monitor.Spec.Endpoints {
				if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port }) {
					t.Errorf("ServiceMonitor %s: Service %s has no port %s", name, s.Name, e.Port)
				}
				if code := adminPaths(t, e.Path); code != 200 {
					t.Errorf("ServiceMonitor %s: %s answers %d", name, e.Path, code)
				}
			}
		}
	}
	for _, service := range services {
		if !found[service] {
			t.Errorf("%s is not scraped", service)
		}
	}
}

// TestCertManagerMakesWhatIsMounted: names by which peers know each other, in the Secrets that pods mount.
func TestCertManagerMakesWhatIsMounted(t *testing.T) {
	t.Parallel()
	m := build(t, "variants/everything")
	for _, service := range services {
		i := slices.IndexFunc(m.certificates, func(c certManager) bool {
			return c.Kind == "Certificate" && slices.Equal(c.Spec.DNSNames, []string{service})
		})
		if i < 0 {
			t.Errorf("no certificate names %s", service)
			continue
		}
		volumes := all[appsv1.Deployment](m)[service].Spec.Template.Spec.Volumes
		tls := volumes[slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == "tls" })]
		if got := m.certificates[i].Spec.SecretName; got != tls.Secret.SecretName {
			t.Errorf("%s mounts %s, and cert-manager makes %s", service, tls.Secret.SecretName, got)
		}
	}
}

func TestTheGuideNamesEverySecretOfProduction(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads(build(t, "overlays/production")) {
		for _, v := range w.template.Spec.Volumes {
			if v.Secret != nil && !bytes.Contains(guide, []byte("`"+v.Secret.SecretName+"`")) {
				t.Errorf("docs/kubernetes.md does not say how to make the Secret %s", v.Secret.SecretName)
			}
		}
	}
}

// TestProductionLimitsClientsAndNotTheirProxy: behind an Ingress everybody has its address.
func TestProductionLimitsClientsAndNotTheirProxy(t *testing.T) {
	t.Parallel()
	args := container(t, build(t, "overlays/production"), "authserver").Args
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--trusted-proxy=") }) {
		t.Errorf("the authserver believes nobody's X-Forwarded-For: %v", args)
	}
}
