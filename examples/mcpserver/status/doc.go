// Package status is the demo's public MCP server: it says which of the demo's
// servers answer, and has the tools with which streams and questions can be
// watched through a gateway.
//
// Nobody signs in here, so a credential in a request means that a gateway has
// sent one person's key to a stranger: such requests are refused.
// So whoami can only answer that nobody is calling.
//
// What it leaves out: history. Reported incidents are kept in memory, the last
// hundred of them.
package status
