// Package audit says who did what with which outcome, and keeps it.
//
// A [Record] is one row of an append-only table and one log line ("audit"). It
// is about ids and names, and has no field that could hold a token.
//
// What changes stored state writes its record in the same transaction (see
// package store) and logs it afterwards; everything else calls
// [Recorder.Record], which inserts before it returns, so that a credential is
// handed out only after its record is durable. The insert is affordable
// because the gateway asks once per session, backend and lifetime of a
// credential, not once per call.
//
//	a Record ──▶ Recorder.Record ──▶ table ──▶ Recorder.Log ──▶ log line, counter
//	a change ──▶ table, in its transaction ──▶ Recorder.Log
//
// What it leaves out: reading records (the store lists them, ConnectionService
// serves them) and retention (package sweep).
package audit
