package era

import "slices"

// Protocol versions that clients may speak.
const (
	V20250326 = "2025-03-26"
	V20250618 = "2025-06-18"
	V20251125 = "2025-11-25"
	V20260728 = "2026-07-28"
)

// LatestSession is the newest version with sessions; FirstStateless is the
// oldest without. Versions are dates: they compare as strings.
const (
	LatestSession  = V20251125
	FirstStateless = V20260728
)

// sessionVersions returns the versions with sessions, newest first.
func sessionVersions() []string { return []string{V20251125, V20250618, V20250326} }

// Versions returns every version, newest first.
func Versions() []string { return []string{V20260728, V20251125, V20250618, V20250326} }

// Negotiate answers the version that an initialize request asks for: the same
// when it is ours, otherwise the newest that initialize can agree on (MCP
// 2025-11-25, Lifecycle, Version Negotiation).
func Negotiate(asked string) string {
	if IsSession(asked) {
		return asked
	}
	return LatestSession
}

// IsSession reports whether version is one of ours with sessions.
func IsSession(version string) bool { return slices.Contains(sessionVersions(), version) }

// IsStateless reports whether version belongs to the stateless era, ours or not.
func IsStateless(version string) bool { return version >= FirstStateless }

// HasBatches reports whether version has JSON-RPC batches. The version that is
// not named is the oldest.
func HasBatches(version string) bool { return version == "" || version == V20250326 }
