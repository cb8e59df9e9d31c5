// Package upstream speaks to the identity providers that a deployment chains:
// OpenID Connect with discovery, and plain OAuth 2.0.
//
//	config.Deployment ─▶ NewRegistry ─▶ Registry ─▶ Provider
//	                                                  Describe  what a browser is sent to
//	                                                  Redeem    code → Grant, identity checked
//	                                                  Refresh   refresh token → Grant
//	                                                  Revoke    token → nothing
//
// A [Provider] is safe for concurrent use and keeps no token. Its calls are
//
//	Describe(ctx) (Description, error)
//	Redeem(ctx, RedeemRequest) (Grant, error)
//	Refresh(ctx, RefreshRequest) (Grant, error)
//	Revoke(ctx, token secret.String, hint TokenHint) error
//
// Errors are *fault.Error with one of the reasons reason.UpstreamRefused (a certain
// no), reason.UpstreamUnavailable (nobody knows: network, deadline, 5xx, garbage,
// open circuit) and reason.IdentityInvalid. The first two are told apart because a
// refresh token may be spent in the second case; [MetadataSent] says whether it
// can be, [MetadataDenied] whether the provider says that it is not. No error and no log record holds a token, a code or any text that
// a provider sent; of an error answer only a registered error code is kept. That
// is why discovery and id tokens are read here, on go-jose, and not by a client
// library: those quote what they were sent in their errors and read without bound.
//
// Every call has a deadline (ten seconds unless configured), reads at most 1 MiB, follows no
// redirect, and connects through the outbound guard under the provider's own
// policy. A provider that fails again and again is left alone for a moment (a
// circuit breaker per provider). Anybody can bring a code that is none, so redemptions
// have a breaker apart, which opens where the provider does not answer at all: they
// cannot keep the tokens of others from being renewed. A provider that asks for fewer
// requests (429) is not down; Retry-After says when to come again.
//
// What it leaves out: storing tokens, deciding when to refresh, and the front
// channel (state, PKCE and nonce belong to the authorization server).
package upstream
