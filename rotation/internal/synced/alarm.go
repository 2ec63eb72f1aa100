package synced

import (
	"sync/atomic"
	"time"
)

// alarmEvery is how often an alarm is logged at most. A person who writes to the store could
// otherwise fill the logs.
const alarmEvery = 10 * time.Second

// An Alarm counts events that a fault of the network cannot cause: a store that lost what it had
// acknowledged, or a person who writes to it. It is safe for concurrent use.
type Alarm struct {
	count  atomic.Uint64
	logged atomic.Int64 // when it was logged last, in nanoseconds since 1970; 0 for never
}

// Alarms are the alarms of a keyring. rotation.Counts documents them.
type Alarms struct{ Undone, Older, Forged, Bootstrap, clash Alarm }

// Raise counts an event of a, and logs it unless another one was logged less than alarmEvery ago.
func (k *Rings) Raise(a *Alarm, text string, args ...any) {
	n, now, last := a.count.Add(1), k.cfg.Now().UnixNano(), a.logged.Load()
	if last != 0 && now >= last && now-last < int64(alarmEvery) || !a.logged.CompareAndSwap(last, now) {
		return
	}
	k.cfg.Logger.Warn(text, append(args, "times", n)...)
}

// Count returns how many events a has counted.
func (a *Alarm) Count() uint64 { return a.count.Load() }
