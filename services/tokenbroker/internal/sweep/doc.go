// Package sweep ends and erases what time has run out for.
//
//	each minute: sessions that nobody completed or touched     ──▶ ended, an event, a record
//	             legs of reconnections that nobody completed   ──▶ erased ──▶ revoke
//	             connections that no session links             ──▶ marked with the time
//	             … for the time of retention                   ──▶ erased ──▶ revoke
//	             old sessions, events, records, blobs, users who never arrived ──▶ deleted
//
// Everything happens in bounded batches; what one sweep does not get to waits for
// the next. Replicas may sweep at the same time: they skip each other's rows. A
// process that dies between erasing and revoking leaves tokens to expire at their
// provider, none here.
//
// What it leaves out: what ends at once (sessions, disconnections), which does not
// wait for a sweep, and the revocation itself (package revoke).
package sweep
