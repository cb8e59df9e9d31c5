// Package docs checks what the documentation claims and a compiler cannot see:
// links resolve, sets of resources are valid, excerpts are in them, messages,
// metrics and spans that a page explains are in the source, and metrics and spans
// that the source has are explained. The guide to running the services is followed
// as it stands, from an empty folder to three services that answer; the pages about
// calls by hand, backup and restore, and operation are followed on the demo's stack.
//
// What it leaves out: the commands of the other pages, which people try when they
// write them; those about containers and clusters need an engine.
package docs
