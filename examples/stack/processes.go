package stack

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// processes describes every process of the stack. What is no secret is given as
// a flag, so that ps shows it; database URLs are in the environment.
func (s *Stack) processes() ([]*child, error) {
	p := s.cfg.Ports
	services, err := s.services()
	if err != nil {
		return nil, err
	}
	probes := ""
	for _, t := range []struct {
		name string
		port int
	}{{"corp", p.Corp}, {"octohub", p.Octohub}, {"repos", p.Repos}, {"payroll", p.Payroll}} {
		probes += ";" + t.name + "=" + local(t.port) + "/healthz"
	}
	all := append(services,
		s.example("corp", p.Corp, p.CorpFaults, append(s.people(),
			"--issuer", local(p.Corp),
			"--redirect-uri", s.Issuer()+"/oauth/callback/corp",
			"--trusted-issuer", s.Issuer()+"="+s.Issuer()+"/oauth/jwks",
			"--secrets-dir", s.SecretsDir("corp"), "--state-dir", s.path("state", "corp"))...),
		s.example("octohub", p.Octohub, p.OctohubFaults, append(s.people(),
			"--base-url", local(p.Octohub),
			"--redirect-uri", s.Issuer()+"/oauth/callback/octohub",
			"--secrets-dir", s.SecretsDir("octohub"), "--state-dir", s.path("state", "octohub"))...),
		s.example("repos", p.Repos, p.ReposFaults, "--octohub-url", local(p.Octohub)),
		s.example("payroll", p.Payroll, p.PayrollFaults, append(s.people(),
			"--issuer", local(p.Corp), "--public-url", local(p.Payroll))...),
		s.example("status", p.Status, p.StatusFaults, "--probe", probes[1:]),
	)
	all = slices.DeleteFunc(all, func(c *child) bool { return slices.Contains(s.cfg.Omit, c.name) })
	for _, c := range all {
		c.args = append(c.args, s.cfg.Args[c.name]...)
	}
	return all, nil
}

func (s *Stack) services() ([]*child, error) {
	p := s.cfg.Ports
	var services []*child
	for _, service := range []struct {
		name  string
		admin int
		env   []string
		args  []string
	}{
		{"authserver", p.AuthserverAdmin, nil, []string{
			"--public-address", hostPort(p.Authserver),
			"--grpc-address", hostPort(p.AuthserverGRPC),
			"--broker-address", hostPort(p.Broker),
		}},
		{"tokenbroker", p.BrokerAdmin, nil, []string{
			"--grpc-address", hostPort(p.Broker),
			"--rest-address", hostPort(p.BrokerREST),
			"--authserver-address", hostPort(p.AuthserverGRPC),
			"--key-encryption-key", "tokenbroker-kek/key",
		}},
		{"gateway", p.GatewayAdmin, nil, []string{
			"--public-address", hostPort(p.Gateway),
			"--broker-address", hostPort(p.Broker),
			"--session-key", "gateway-session/key",
		}},
	} {
		env := append(baseEnv(), "CHATELAINE_SECRETS_DIR="+s.SecretsDir(service.name))
		if service.name != "gateway" {
			url, err := databaseURL(s.cluster, service.name)
			if err != nil {
				return nil, err
			}
			env = append(env, "CHATELAINE_DATABASE_URL="+url.Reveal())
			if err := s.writeDatabaseURL(service.name, url.Reveal()); err != nil {
				return nil, err
			}
		}
		args := append([]string{
			"serve",
			"--config", s.ResourcesFile(),
			"--admin-address", hostPort(service.admin),
			"--tls-cert", filepath.Join(s.TLSDir(), service.name+".crt"),
			"--tls-key", filepath.Join(s.TLSDir(), service.name+".key"),
			"--tls-ca", filepath.Join(s.TLSDir(), "ca.crt"),
		}, append(service.args, s.tracing()...)...)
		services = append(services, &child{
			name: service.name, path: filepath.Join(s.cfg.servicesBinDir(), service.name), args: args,
			env:   append(env, s.cfg.Env[service.name]...),
			ready: fmt.Sprintf("http://%s/readyz", hostPort(service.admin)),
		})
	}
	return services, nil
}

// example is one of the demo's own servers.
func (s *Stack) example(name string, port, faults int, args ...string) *child {
	args = append([]string{name, "--addr", hostPort(port), "--faults-addr", hostPort(faults)}, args...)
	return &child{
		name: name, path: filepath.Join(s.cfg.BinDir, "examples"),
		args:  append(args, s.tracing()...),
		env:   append(baseEnv(), s.cfg.Env[name]...),
		ready: "http://127.0.0.1:" + strconv.Itoa(port) + "/healthz",
	}
}

func (s *Stack) tracing() []string {
	if s.cfg.OTLPEndpoint == "" {
		return nil
	}
	return []string{"--otlp-endpoint", s.cfg.OTLPEndpoint, "--otlp-insecure"}
}

func (s *Stack) people() []string {
	if s.cfg.PeopleFile == "" {
		return nil
	}
	return []string{"--people", s.cfg.PeopleFile}
}
