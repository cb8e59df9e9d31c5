// Package repos is the demo's MCP server for repositories at octohub. It has no
// identity of its own: with the bearer token of each request it asks octohub, and
// octohub decides what the person may see.
//
// Before a request reaches MCP, octohub's /user says whose token it is. A token
// that octohub refuses becomes this server's own 401, where a gateway can see it.
//
// What it leaves out: any cache. Nothing of one person's answer outlives the
// request that asked for it.
package repos
