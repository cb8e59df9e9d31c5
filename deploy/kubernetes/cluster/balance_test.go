//go:build k8s

package cluster

import (
	"strconv"
	"strings"
)

// share says which requests of a service are counted, and how many of them each of its two
// replicas must have, as a part of all.
type share struct {
	service, port string
	series        []string // beginnings of names, with the parts of labels that must be there
	atLeast       float64
}

// shares: gRPC clients take brokers in turn. Before authservers and gateways is kube-proxy, which
// chooses by lot, and once for each connection: people come with a new one for each login, half of
// the callers' calls with the thirty of their session, and the other callers keep to one replica
// for the whole phase, so that a gateway may fairly have little.
var shares = []share{
	{"tokenbroker", "9092", []string{"rpc_server_call_duration_seconds_count", "CredentialService/GetCredential"}, 0.3},
	{"tokenbroker", "9092", []string{"rpc_server_call_duration_seconds_count", "LoginService/RedeemCode"}, 0.3},
	{"authserver", "8081", []string{"http_server_request_duration_seconds_count", `server="public"`}, 0.2},
	{"gateway", "8001", []string{"http_server_request_duration_seconds_count", `server="public"`}, 0.1},
}

// balanced checks, in a phase in which nothing is restarted, that both replicas of each service work.
func (k kubectl) balanced() {
	k.t.Helper()
	before := k.counts()
	k.quiet("undisturbed", func() {
		begin := k.stats()
		k.await("half a minute of load", func() bool { now := k.stats(); return now.Seconds > begin.Seconds+30 })
	})
	after := k.counts()
	for i, s := range shares {
		all := 0.0
		for pod := range after[i] {
			all += after[i][pod] - before[i][pod]
		}
		for pod := range after[i] {
			part := after[i][pod] - before[i][pod]
			k.t.Logf("%-38s %5.0f of %5.0f %s", pod, part, all, s.series[1])
			if all < 40 || part < s.atLeast*all {
				k.t.Errorf("%s had %.0f of %.0f %s, less than %.0f %%", pod, part, all, s.series[1], 100*s.atLeast)
			}
		}
	}
}

// counts are the requests of each share, by pod.
func (k kubectl) counts() []map[string]float64 {
	k.t.Helper()
	all := make([]map[string]float64, len(shares))
	for i, s := range shares {
		all[i] = map[string]float64{}
		for _, p := range k.pods(s.service) {
			metrics := k.run("get", "--raw", "/api/v1/namespaces/"+k.namespace+"/pods/"+p.Metadata.Name+":"+s.port+"/proxy/metrics")
			all[i][p.Metadata.Name] = s.sum(k, metrics)
		}
	}
	return all
}

// sum adds up the lines of a share.
func (s share) sum(k kubectl, metrics string) float64 {
	k.t.Helper()
	total := 0.0
	for line := range strings.SplitSeq(metrics, "\n") {
		if !strings.HasPrefix(line, s.series[0]+"{") || !strings.Contains(line, s.series[1]) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			k.t.Fatalf("%s: %v", line, err)
		}
		total += n
	}
	return total
}
