// Package sweep removes, now and then, what has expired: abandoned chains, codes
// that were never redeemed, grants without a living token, registrations that
// nobody uses, and keys of which no token is alive. What that means row by row is
// the store's; this package only keeps the time. Replicas may sweep at once.
package sweep
