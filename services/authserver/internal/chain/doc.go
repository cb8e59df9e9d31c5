// Package chain walks a person's browser through every upstream identity provider,
// one leg after another, between one authorization request of a client and the
// one code that answers it.
//
//	Start ──▶ consent page ──Approve──▶ next ──▶ leg ──▶ provider ──▶ Return ──▶ next ──▶ …
//	                │                    │                                        │
//	               Deny                  └── nothing is missing ──▶ (account changed? confirm page) ──▶ code
//
// next is the one dispatcher: every step comes back to it, never to another step,
// and it asks one question: what is missing? The answer is the broker's, which
// redeems each leg's code and keeps what the session has of each provider. The
// primary provider's leg runs first, because it says who the person is.
//
// Each leg has a state of its own (single use, kept as a hash, good in one browser
// for one provider), a PKCE verifier (RFC 7636) and, for OpenID Connect, a nonce;
// both are sealed while they wait. The iss of an answer is compared when it is
// sent or was promised (RFC 9207), and no two providers share a redirect URI
// unless the deployment says so.
//
// When a leg fails, an optional provider is skipped and the walk goes on; a
// required one ends the chain: the session is ended through the outbox, so that
// nothing of it is left behind, and the client gets an OAuth error with iss and
// state. Texts of upstreams are never passed on.
//
// When the database or the broker cannot be reached, the browser gets a page and the
// login waits where it was: the same request again goes on. A state is good once all
// the same. A browser that brings it a second time goes on where the login is by
// then, and walks a leg anew of which nothing came: the code of the first time is
// never sent again.
//
// A callback from another browser than the one that began is refused with a page
// and changes nothing: the state stays good where it belongs. So nobody can end
// somebody else's login with a stolen or guessed callback URL, nor finish it.
//
// What it leaves out: checking the client's request (package authorize), HTML and
// cookies (packages pages and front), issuing codes (package grants), and every
// request to an upstream but the browser's own: those are the broker's.
package chain
