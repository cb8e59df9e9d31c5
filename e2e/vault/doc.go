// Package vault tests the token broker as a vault, from outside: three unmodified
// brokers on one Postgres, two identity providers that rotate refresh tokens and
// keep a journal of what they were asked and said, and callers that speak gRPC as
// the authserver and the gateways do.
//
// One provider tolerates a refresh token's second use for thirty seconds, the other
// one revokes the whole family at once; each replica reaches them at an address of
// its own, so that the journal tells who asked. Replicas are killed and suspended,
// the database is restarted, failed over and filled; what the tests assert is in the
// journal, in the rows, and in the answers that callers got.
//
// CHATELAINE_VAULT_ROUNDS and CHATELAINE_VAULT_CALLS make the test of concurrent
// renewals longer than it is by default (`make vault-test` does), and
// CHATELAINE_VAULT_SEED repeats one run's random choices.
//
// What it leaves out: the authserver and browsers, which package e2e has.
package vault
