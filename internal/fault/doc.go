// Package fault is the one error type of the house.
//
// A [*Error] has a kind (what a program does about it), a reason (which case of
// that kind, stable, documented by the package that makes it), a message that any
// caller may read, and a cause that only our own logs may show. Reasons that are
// part of an API are in UPPER_SNAKE_CASE, as google.rpc.ErrorInfo asks for
// (CONFIG_UNKNOWN), and callers can rely on them; those of the plumbing, which tell
// people what is wrong and may change, are in lower_snake_case
// (database_unavailable, request_invalid). Both go out as they are written. An error
// is made where the facts are known, travels upwards as an ordinary error, and is
// turned into a public document once, at the edge:
//
//	store ──▶ domain ──▶ gRPC edge: GRPCStatus ──▶ wire ──▶ FromGRPC ──▶ domain ──▶ HTTP edge: Kind.HTTPStatus
//
// Error() is the public text; the cause is reached with errors.Is, errors.As,
// [Detail] (one line for an operator's terminal) and LogValue or [Attr] (a
// group for slog). Nothing of the cause is ever in [Error.GRPCStatus].
//
// What it leaves out: stack traces (a recovered panic logs its own), and the
// OAuth and JSON-RPC documents, which belong to the services that speak them.
package fault
