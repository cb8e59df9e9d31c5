package compose

import (
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	flags "chatelaine.dev/internal/cli"
)

// load reads the file with everything that profiles may add.
func load(t *testing.T, files ...string) *types.Project {
	t.Helper()
	paths := []string{filepath.Join("..", "..", "docker-compose.yml")}
	for _, f := range files {
		paths = append(paths, filepath.Join("..", "..", f))
	}
	options, err := cli.NewProjectOptions(paths, cli.WithProfiles([]string{"*"}),
		cli.WithEnv([]string{"CHATELAINE_E2E_PEOPLE=people.yaml"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) < 15 {
		t.Fatalf("only %d services were read", len(project.Services))
	}
	return project
}

// oneShots end; the others serve.
func oneShot(s types.ServiceConfig) bool {
	return s.Name == "init" || strings.HasPrefix(s.Name, "migrate-")
}

// unasked are services of other people's images in which no program can ask for health.
var unasked = []string{"collector", "jaeger"}

func TestEveryContainerIsConfined(t *testing.T) {
	t.Parallel()
	for name, s := range load(t).Services {
		for what, ok := range map[string]bool{
			"a read-only root":           s.ReadOnly,
			"no capabilities":            slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0,
			"no way to new privileges":   slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
			"a user who is not root":     s.User != "" && s.User != "root" && !strings.HasPrefix(s.User, "0"),
			"nothing privileged":         !s.Privileged && s.Pid == "" && s.Ipc == "" && s.UserNSMode == "" && len(s.Devices) == 0,
			"a limit of memory":          s.MemLimit > 0,
			"a limit of processes":       s.PidsLimit > 0,
			"no network of the host":     s.NetworkMode == "" || s.NetworkMode == "none",
			"a reason to restart or not": s.Restart == "on-failure" || oneShot(s) && s.Restart == "no",
		} {
			if !ok {
				t.Errorf("%s does not have %s", name, what)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeVolume {
				t.Errorf("%s mounts %s of the host", name, v.Source)
			}
		}
	}
}

func TestNothingIsReachableFromOtherMachines(t *testing.T) {
	t.Parallel()
	project := load(t)
	taken := map[string]string{}
	for name, s := range project.Services {
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %d on %q", name, port.Target, port.HostIP)
			}
			if other, ok := taken[port.Published]; ok && port.Published != "" {
				t.Errorf("%s and %s both publish port %s", name, other, port.Published)
			}
			taken[port.Published] = name
		}
	}
	// The URLs that the demo's resources and documentation name.
	for published, service := range map[string]string{
		"8080": "authserver-front", "8000": "gateway-front", "5556": "corp", "5557": "octohub", "9090": "tokenbroker", "9091": "tokenbroker",
	} {
		if taken[published] != service {
			t.Errorf("port %s is that of %q, want %s", published, taken[published], service)
		}
	}
	if postgres := project.Services["postgres"]; !project.Networks["database"].Internal || len(postgres.Networks) != 1 || len(postgres.Ports) != 0 {
		t.Error("the database can be reached from outside of its network")
	}
}

func TestEveryServiceSaysWhetherItIsWell(t *testing.T) {
	t.Parallel()
	project := load(t)
	for name, s := range project.Services {
		checked := s.HealthCheck != nil && !s.HealthCheck.Disable && len(s.HealthCheck.Test) > 1
		if checked == (oneShot(s) || slices.Contains(unasked, name)) {
			t.Errorf("%s: health check %v", name, s.HealthCheck)
		}
		for dependency, d := range s.DependsOn {
			want := types.ServiceConditionHealthy
			switch {
			case oneShot(project.Services[dependency]):
				want = types.ServiceConditionCompletedSuccessfully
			case slices.Contains(unasked, dependency):
				want = types.ServiceConditionStarted
			}
			if d.Condition != want {
				t.Errorf("%s waits until %s is %q, want %q", name, dependency, d.Condition, want)
			}
		}
	}
	// Services wait for what they cannot do without, and for none of each other.
	for name, want := range map[string]string{
		"postgres": "init", "migrate-authserver": "postgres", "migrate-tokenbroker": "postgres", "authserver": "migrate-authserver",
		"authserver-2": "migrate-authserver", "tokenbroker": "migrate-tokenbroker", "tokenbroker-2": "migrate-tokenbroker",
		"gateway": "init", "gateway-2": "init", "authserver-front": "authserver", "gateway-front": "gateway",
	} {
		if got := project.Services[name].GetDependencies(); !slices.Equal(got, []string{want}) {
			t.Errorf("%s waits for %v, want %s", name, got, want)
		}
	}
}

var versioned = regexp.MustCompile(`^[a-z0-9./-]+:v?[0-9]+[0-9a-z.-]*$`)

func TestImagesArePinnedOrBuiltHere(t *testing.T) {
	t.Parallel()
	built := map[string]bool{}
	project := load(t)
	for _, s := range project.Services {
		if s.Build != nil {
			built[s.Image] = true
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Error(err)
			}
		}
	}
	for name, s := range project.Services {
		// A name that is built here may be anybody's at a registry.
		if strings.HasPrefix(s.Image, "chatelaine/") {
			if s.PullPolicy != types.PullPolicyNever || !built[s.Image] {
				t.Errorf("%s may pull %s, or nothing builds it", name, s.Image)
			}
		} else if !versioned.MatchString(s.Image) {
			t.Errorf("%s takes %s, which is not pinned", name, s.Image)
		}
	}
	dockerfile, err := os.ReadFile(filepath.Join("..", "..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(dockerfile); m == nil || strings.Count(string(m[1]), ".") != 2 {
		t.Errorf("the Go version of the images is not pinned: %q", m)
	}
}

var secretName = regexp.MustCompile(`(?i)password|secret|token|_key`)

func TestNoSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	for name, s := range load(t, "deploy/compose/e2e.yaml").Services {
		values := slices.Clone(s.Command)
		for key, value := range s.Environment {
			if value == nil {
				t.Errorf("%s takes %s from whoever starts it", name, key)
				continue
			}
			values = append(values, *value)
			// A path, or a reference NAME/KEY.
			if secretName.MatchString(key) && *value != "" && !strings.Contains(*value, "/") {
				t.Errorf("%s has the literal %s", name, key)
			}
		}
		for _, value := range values {
			if u, err := url.Parse(value); err == nil && u.User != nil {
				t.Errorf("%s has a URL with a user in it: %s", name, u.Redacted())
			}
		}
	}
}

func TestEachContainerMountsItsOwnSecretsAlone(t *testing.T) {
	t.Parallel()
	for name, s := range load(t).Services {
		owner := strings.TrimSuffix(strings.TrimPrefix(name, "migrate-"), "-2")
		for _, v := range s.Volumes {
			whose, ok := strings.CutSuffix(v.Source, "-material")
			if !ok || name == "init" {
				continue
			}
			if whose != owner || !v.ReadOnly {
				t.Errorf("%s mounts the secrets of %s (read-only: %t)", name, whose, v.ReadOnly)
			}
		}
	}
}

func TestEveryMountedFileIsThere(t *testing.T) {
	t.Parallel()
	project := load(t)
	for name, config := range project.Configs {
		if _, err := os.Stat(config.File); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range project.Services {
		for _, c := range s.Configs {
			if _, ok := project.Configs[c.Source]; !ok {
				t.Errorf("%s mounts %s, which is not there", name, c.Source)
			}
		}
	}
}

func TestASecondReplicaDiffersInNothingButPorts(t *testing.T) {
	t.Parallel()
	project := load(t)
	for _, name := range []string{"authserver", "tokenbroker", "gateway"} {
		first, second := project.Services[name], project.Services[name+"-2"]
		if !slices.Equal(second.Profiles, []string{"replicas"}) || len(first.Profiles) != 0 {
			t.Errorf("profiles of %s and its second replica: %v, %v", name, first.Profiles, second.Profiles)
		}
		if first.Image != second.Image || !slices.Equal(first.Command, second.Command) {
			t.Errorf("the replicas of %s run different programs", name)
		}
		for key, value := range first.Environment {
			if other := second.Environment[key]; other == nil || *other != *value {
				t.Errorf("%s: %s differs", name, key)
			}
		}
		for _, s := range []types.ServiceConfig{first, second} {
			if network := s.Networks["default"]; network == nil || !slices.Contains(network.Aliases, name) {
				t.Errorf("%s is not found under the name %s", s.Name, name)
			}
		}
	}
}

// drainWithin is how long the broker waits, after everything else, for renewals that
// are in flight at providers.
var drainWithin = regexp.MustCompile(`\bdrainWithin = (\d+) \* time\.Second\b`)

func TestARunningRequestOrRenewalOutlivesItsContainersStop(t *testing.T) {
	t.Parallel()
	timeout, _ := reflect.TypeFor[flags.Drain]().FieldByName("DrainTimeout")
	var drain flags.Drain
	var err error
	if drain.DrainTimeout, err = time.ParseDuration(timeout.Tag.Get("default")); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join("..", "..", "services", "tokenbroker", "internal", "refresh", "background.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := drainWithin.FindSubmatch(source)
	if m == nil {
		t.Fatal("the broker's wait for renewals in flight is not where this test looks for it")
	}
	seconds, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	project := load(t)
	for _, name := range []string{"authserver", "authserver-2", "tokenbroker", "tokenbroker-2", "gateway", "gateway-2"} {
		needed := drain.StopTimeout()
		if strings.HasPrefix(name, "tokenbroker") {
			needed += time.Duration(seconds) * time.Second
		}
		if grace := project.Services[name].StopGracePeriod; grace == nil || time.Duration(*grace) <= needed {
			t.Errorf("%s is killed after %v and needs %s", name, grace, needed)
		}
	}
}

func TestDialsLeadToContainersThatExist(t *testing.T) {
	t.Parallel()
	project := load(t)
	for name, s := range project.Services {
		value := s.Environment["CHATELAINE_DIAL"]
		if value == nil {
			continue
		}
		for pair := range strings.SplitSeq(*value, ",") {
			from, to, _ := strings.Cut(pair, "=")
			host, port, _ := strings.Cut(to, ":")
			target, ok := project.Services[host]
			if !ok {
				t.Errorf("%s reaches %s at %s, which is no service", name, from, host)
				continue
			}
			if _, own, _ := strings.Cut(from, ":"); own != port {
				t.Errorf("%s: %s and %s differ in their ports", name, from, to)
			}
			if n, err := strconv.Atoi(port); err != nil || !strings.Contains(strings.Join(target.Command, " "), ":"+strconv.Itoa(n)) {
				t.Errorf("%s: %s does not listen on %s", name, host, port)
			}
		}
	}
}
