// Package config reads the set of YAML resources that describes one deployment
// and turns it into the view that the services act on.
//
// The set is a file or a folder of files. Every service reads the same set and
// takes its own part of it. The kinds and field names are those that users of
// ToolHive write (VirtualMCPServer, MCPExternalAuthConfig, MCPServerEntry,
// MCPOIDCConfig, MCPGroup): what is supported of an existing set works unchanged,
// and of the rest each kind and field is named in an error or a warning.
//
// Data flows in one direction:
//
//	bytes ─▶ documents (yaml.Node) ─▶ resources ─▶ checks ─▶ Deployment
//
// Decoding is strict: an unknown field, a duplicate key, a value of the wrong
// type or a literal secret is an error that names file, document, path and
// line, and the nearest known name. No step stops at the first problem: a
// [Report] carries all of them. A [Set] exists only when there is no error, and
// its [Deployment] has every default filled in and every reference resolved, so
// that no service derives anything twice.
//
// Secrets never pass through here: resources name them ([SecretKeyRef]), and
// messages never repeat a value that could be one.
//
// What this package leaves out: it opens no secret and no network connection,
// it does not watch files, and flags (addresses, database URLs, TLS material)
// belong to the services.
package config

//go:generate go run ./cmd/config-docs -root ../..
