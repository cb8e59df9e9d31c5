// Package rules reads the files that say whom the demo's identity providers serve:
// YAML of bounded size, in which an unknown field is an error, or what is built in
// when no file is named. A provider's own package says what is in its file; what
// all of them know of a client is a Registration.
package rules
