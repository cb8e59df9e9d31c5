// Package docs checks what the documentation claims and a compiler cannot see:
// links resolve, sets of resources are valid, excerpts are in them, messages and
// metrics that a page explains are in the source, and metrics that the source has
// are explained. The guide to running the services is followed as it stands, from
// an empty folder to three services that answer.
//
// What it leaves out: the commands of the other pages, which people try when they
// write them.
package docs
