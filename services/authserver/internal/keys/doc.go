// Package keys holds the keys that sign what the authorization server issues.
//
// Private keys come from the deployment's configuration, newest first; they are
// never stored. Their public halves are published through the store, where all
// replicas see them, so that each replica's JWKS (RFC 7517) has every key of
// which a token may still be alive, whoever signed it and however long ago the
// key left the configuration.
//
//	configuration ─▶ Parse ─▶ Set ──Run──▶ store (public halves, when published, how long to keep)
//	                           │ ◀───────── every key that still verifies
//	                     Sign ─┘└─ JWKS, Verify
//
// A new key is published before it signs: among the configured keys that have
// been published for PublishDelay, the newest signs. Verifiers that cache the
// key set for less than that never meet a token whose key they cannot find.
//
// What it leaves out: making keys, encryption (JWE), and HMAC secrets.
package keys
