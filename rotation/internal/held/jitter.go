package held

import (
	"hash/fnv"
	"math/rand/v2"
)

// NewJitter returns random numbers that spread the instances of a fleet over time. They are not
// secret, and depend on the instance's name alone, so a simulation repeats itself. use keeps the
// numbers of different purposes apart.
func NewJitter(instance string, use uint64) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(instance))
	return rand.New(rand.NewPCG(h.Sum64(), use))
}
