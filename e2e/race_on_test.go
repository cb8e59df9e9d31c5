//go:build race

package e2e

// raceEnabled makes the services under test carry the race detector too.
const raceEnabled = true
