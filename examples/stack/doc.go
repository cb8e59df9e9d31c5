// Package stack runs a whole deployment on one machine: a private Postgres, the
// two example identity providers, the three example MCP servers and the three
// services, each as a process of its own, built beforehand.
//
// Start makes what is missing (a certificate authority, keys, secrets, database
// roles) in a folder, once, then migrates, starts everything, and returns when
// every process says that it is ready. A second Start in the same folder finds
// its data again. `make up`, `make demo`, `make bench` and the end-to-end tests
// all run on it; each process gets its own secrets and nobody else's.
//
// What it leaves out: restarting a process that died (it is an error that names
// the process and the end of its log), and anything beyond one machine.
package stack
