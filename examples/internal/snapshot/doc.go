// Package snapshot keeps a small state in memory and in one JSON file.
//
// [Store.Update] changes the state under a lock, writes the whole of it to a new
// file beside the old one, syncs it, and renames it into place before it
// returns: what a caller was told is on disk, and a crash leaves either the old
// state or the new one. When writing fails, the change is undone in memory too.
//
// What it leaves out: any state that is too large to be written at each change,
// and two processes sharing one file. It serves demo servers, not databases.
package snapshot
