// Package grants is the ledger of what people granted to clients, and of the
// tokens that came out of it, as both demo providers keep it.
//
// A grant is what one approved authorization request made: a family of tokens.
// Access and refresh tokens are known by the digest of their text ([Key]), never
// by the text. A refresh token is spent once: [Ledger.Spend] on a spent one ends
// the whole grant (RFC 9700 section 4.14.2), unless that was a moment ago and
// the provider grants such a grace, because the client's first answer may have
// been lost.
//
// A Ledger is plain data with no lock and no clock: its owner stores it, guards
// it and passes the time.
package grants
