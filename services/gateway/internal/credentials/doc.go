// Package credentials keeps what backends must be sent for each caller, and
// forgets it when the broker says so.
package credentials
