// Package process runs the parts of a program together and stops them together.
//
// A part is a [Task]: a function that works until its context ends. A [Group]
// runs named tasks; the first error ends the context of all, and stopping is
// bounded: tasks that do not return in time are named in the error.
// [HTTPServer] makes a task of an http.Server with sane limits. [Main] is the
// body of a main function: signals, one readable line on failure, exit status.
//
//	func main() { process.Main("gateway", app.Run) }
//
// What it leaves out: restarting failed tasks (the platform restarts the
// process), and ordering of starts (no part waits for another).
package process
