// Package subprocess has the attributes of processes that a program here starts and
// stops: a process group of its own, so that a Ctrl-C at the terminal reaches the
// starter alone, which stops the others in order; and, on Linux, a signal that
// ends them when the starter dies, however it does.
package subprocess
