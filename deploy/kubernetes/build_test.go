package kubernetes_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"chatelaine.dev/examples/stack"
)

// variants are what people apply, each a folder below this one; those with a
// kustomization are made of the components that production leaves to the reader.
var variants = map[string]string{
	"overlays/demo":       "",
	"overlays/production": "",
	"variants/everything": `
resources: [../../overlays/production]
components: [../../components/gateway-api, ../../components/monitoring, ../../components/cert-manager, ../../components/tracing]
`,
	"test/production": "",
}

// tree is a copy of this folder with the demo's keys in it, made once.
var tree = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "chatelaine-kubernetes-")
	if err != nil {
		return "", err
	}
	for _, part := range []string{"base", "components", "overlays", "test"} {
		if err := os.CopyFS(filepath.Join(dir, part), withoutMaterial{os.DirFS(part)}); err != nil {
			return "", err
		}
	}
	for path, text := range variants {
		if text == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, path), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, path, "kustomization.yaml"), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return dir, stack.MakeVolumes(filepath.Join(dir, "components/world/material"), "postgres:5432")
})

// withoutMaterial hides the keys that somebody's demo uses.
type withoutMaterial struct{ fs.FS }

func (w withoutMaterial) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	return slicesDelete(entries, func(e fs.DirEntry) bool { return e.Name() == "material" }), err
}

func slicesDelete[T any](list []T, drop func(T) bool) []T {
	var kept []T
	for _, e := range list {
		if !drop(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := tree(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// certManager are the kinds of cert-manager that we use, as far as we use them: its
// own module brings half of Kubernetes along.
type certManager struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       struct {
		SelfSigned  *struct{}                    `json:"selfSigned,omitempty"`
		CA          *struct{ SecretName string } `json:"ca,omitempty"`
		IsCA        bool                         `json:"isCA,omitempty"`
		CommonName  string                       `json:"commonName,omitempty"`
		DNSNames    []string                     `json:"dnsNames,omitempty"`
		SecretName  string                       `json:"secretName,omitempty"`
		Duration    string                       `json:"duration,omitempty"`
		RenewBefore string                       `json:"renewBefore,omitempty"`
		Usages      []string                     `json:"usages,omitempty"`
		PrivateKey  *struct {
			Algorithm      string
			Size           int
			RotationPolicy string
		} `json:"privateKey,omitempty"`
		IssuerRef *struct{ Name, Kind string } `json:"issuerRef,omitempty"`
	} `json:"spec"`
}

// decoder knows every kind that the manifests use, and no field beyond them.
var decoder = sync.OnceValues(func() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		autoscalingv2.AddToScheme, gatewayv1.Install, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
})

// manifests are the decoded objects of one variant.
type manifests struct {
	objects      []runtime.Object
	certificates []certManager
}

// build runs kustomize and decodes what comes out.
func build(t *testing.T, variant string) *manifests {
	t.Helper()
	dir, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	decode, err := decoder()
	if err != nil {
		t.Fatal(err)
	}
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, variant))
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	var problems []error
	for _, r := range result.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(text, []byte("apiVersion: cert-manager.io/")) {
			var c certManager
			err = yaml.UnmarshalStrict(text, &c)
			m.certificates = append(m.certificates, c)
		} else {
			var object runtime.Object
			object, _, err = decode.Decode(text, nil, nil)
			m.objects = append(m.objects, object)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", r.CurId(), err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		t.Fatal(err)
	}
	return m
}

// all returns the objects of one kind by name.
func all[T any](m *manifests) map[string]*T {
	found := map[string]*T{}
	for _, o := range m.objects {
		if typed, ok := any(o).(*T); ok {
			found[nameOf(o)] = typed
		}
	}
	return found
}

func nameOf(o runtime.Object) string {
	if named, ok := o.(interface{ GetName() string }); ok {
		return named.GetName()
	}
	return ""
}

// forEachVariant runs a test on every variant.
func forEachVariant(t *testing.T, test func(*testing.T, *manifests)) {
	t.Parallel()
	for variant := range variants {
		t.Run(strings.ReplaceAll(variant, "/", "-"), func(t *testing.T) {
			t.Parallel()
			test(t, build(t, variant))
		})
	}
}

// workload is what has pods: a Deployment, a StatefulSet, a Job.
type workload struct {
	kind, name string
	namespace  string
	template   *corev1.PodTemplateSpec
}

func workloads(m *manifests) []workload {
	var list []workload
	for _, o := range m.objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			list = append(list, workload{"Deployment", o.Name, o.Namespace, &o.Spec.Template})
		case *appsv1.StatefulSet:
			list = append(list, workload{"StatefulSet", o.Name, o.Namespace, &o.Spec.Template})
		case *batchv1.Job:
			list = append(list, workload{"Job", o.Name, o.Namespace, &o.Spec.Template})
		}
	}
	return list
}

// services are our own three, by name.
var services = []string{"authserver", "tokenbroker", "gateway"}

// container returns the service's one container.
func container(t *testing.T, m *manifests, service string) *corev1.Container {
	t.Helper()
	d := all[appsv1.Deployment](m)[service]
	if d == nil || len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("there is no Deployment %s of one container", service)
	}
	return &d.Spec.Template.Spec.Containers[0]
}

// flag returns the value of --NAME=VALUE, and whether it is given.
func flag(c *corev1.Container, name string) (string, bool) {
	for _, arg := range c.Args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value, true
		}
	}
	return "", false
}
