//go:build compose

package compose

import "testing"

func TestEndToEndTestsPassAgainstContainers(t *testing.T) {
	start(t).endToEnd()
}

func TestEndToEndTestsPassAgainstTwoReplicasOfEachService(t *testing.T) {
	start(t, "replicas").endToEnd()
}
