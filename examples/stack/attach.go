package stack

// Attach describes a deployment that something else runs, for clients of it: the
// containers of docker-compose.yml, for instance. Of cfg it uses Ports and Dir,
// where tls/PEER.{crt,key} and tls/ca.crt are. databaseURL is the superuser's. It
// has no processes, so none can be stopped and none has a log.
func Attach(cfg Config, databaseURL string) *Stack {
	return &Stack{cfg: cfg, databaseURL: databaseURL}
}

// Attached reports whether something else runs the deployment.
func (s *Stack) Attached() bool { return s.databaseURL != "" }
