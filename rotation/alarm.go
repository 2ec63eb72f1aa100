package rotation

import (
	"sync/atomic"
	"time"
)

// alarmEvery is how often an alarm is logged at most. A person who writes to the store could
// otherwise fill the logs.
const alarmEvery = 10 * time.Second

// An alarm counts events that a fault of the network cannot cause: a store that lost what it had
// acknowledged, or a person who writes to it. It is safe for concurrent use.
type alarm struct {
	count  atomic.Uint64
	logged atomic.Int64 // when it was logged last, in nanoseconds since 1970; 0 for never
}

// alarms are the alarms of a keyring. [Counts] documents them.
type alarms struct{ undone, older, forged, bootstrap alarm }

// raise counts an event of a, and logs it unless another one was logged less than alarmEvery ago.
func (k *Keyring) raise(a *alarm, text string, args ...any) {
	n, now, last := a.count.Add(1), k.cfg.Now().UnixNano(), a.logged.Load()
	if last != 0 && now >= last && now-last < int64(alarmEvery) || !a.logged.CompareAndSwap(last, now) {
		return
	}
	k.cfg.Logger.Warn(text, append(args, "times", n)...)
}
