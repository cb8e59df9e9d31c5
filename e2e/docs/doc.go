// Package docs checks what the documentation claims and a compiler cannot see:
// links resolve, sets of resources are valid, excerpts are in them, messages and
// metrics that a page explains are in the source, and metrics that the source has
// are explained.
//
// What it leaves out: commands, which people try when they write them.
package docs
