// Package blobs keeps the gateway's sealed MCP session blobs
// (broker.v1.McpSessionService): compare-and-set and expiry, nothing more.
//
//	gateway: seals ──▶ PutBlob(key, version that was read) ──▶ store
//	         opens ◀── GetBlob ◀──────────────────────────────┘
//
// The broker has no key to the blobs and does not look inside. A write that
// presents another version than the stored one fails with VERSION_MISMATCH, so
// that of two replicas of the gateway one reads again. Expired blobs are invisible
// at once and deleted by package sweep.
//
// What it leaves out: what is in a blob, and when one is needed, which are the
// gateway's.
package blobs
