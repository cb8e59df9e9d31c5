// Package app is the command line of the example servers, one command for each:
// it reads flags (each with a twin in the environment), puts the server together
// and runs it, with its fault switches where they are asked for, until it is told
// to stop.
//
// What it leaves out: metrics. The examples are watched through their logs, their
// traces and the counters of package faults.
package app
