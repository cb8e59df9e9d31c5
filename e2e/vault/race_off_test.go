//go:build !race

package vault

// raceEnabled makes the services under test carry the race detector too.
const raceEnabled = false
