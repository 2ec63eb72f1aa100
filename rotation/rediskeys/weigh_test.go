package rediskeys

import "testing"

func TestServersThatWeighWell(t *testing.T) {
	for version, want := range map[string]bool{
		"6.2.0": true, "6.3.4": true, "7.0.15": true, "7.2.4": true, "8.0.0": true, "8.8.1": true,
		"6.0.16": false, "5.0.7": false, "8.10.0": false, "8.12.0": false, "9.0.0": false, "255.255.255": false, "": false, "8": false, "x": false,
	} {
		if got := weighsWell(version); got != want {
			t.Errorf("Redis %q: %v", version, got)
		}
	}
}
