package rotationtest_test

import (
	"testing"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestClusterKeepsContract(t *testing.T) {
	rotationtest.TestStore(t, func(*testing.T) rotation.Store {
		return rotationtest.NewCluster(rotationtest.ClusterConfig{Page: 7}).Connect("i")
	})
}
