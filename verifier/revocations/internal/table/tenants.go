package table

import "math/bits"

// tenants counts the entries of each tenant, and gives each tenant a short number. The number
// takes 27 bits of an entry in place of the 64 of a tenant's digest.
//
// It is 64 open-addressing tables, so that growing copies a part of it only.
type tenants struct {
	seed  uint64
	parts [1 << partBits]part
}

const partBits = 6

// A part numbers its tenants by their place in list.
type part struct {
	list  []tenant
	free  uint32   // 1 + the place of the first free tenant in list, or 0
	index []uint32 // by hash: 1 + the place in list, or 0
	used  int      // places of index that are not 0
	empty int      // tenants in list that have no entries and are not free yet
}

// A tenant without entries is free once forget has removed it from the index. Its digest is then
// 1 + the place of the next free one, or 0.
//
// Two words of 32 bits hold the digest, so that no memory is lost to alignment.
type tenant struct {
	high, low uint32
	entries   uint32
}

func (t *tenant) digest() uint64     { return uint64(t.high)<<32 | uint64(t.low) }
func (t *tenant) setDigest(d uint64) { t.high, t.low = uint32(d>>32), uint32(d) }

func (ts *tenants) hash(digest uint64) uint64 {
	hi, lo := bits.Mul64(digest^ts.seed, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

// at returns the tenant with that number.
func (ts *tenants) at(n uint32) *tenant {
	return &ts.parts[n&(1<<partBits-1)].list[n>>partBits]
}

// name returns the digest of the tenant with that number.
func (ts *tenants) name(n uint32) uint64 { return ts.at(n).digest() }

// count returns how many entries a tenant has.
func (ts *tenants) count(digest uint64) int {
	h := ts.hash(digest)
	p := &ts.parts[h>>(64-partBits)]
	if place, ok := p.find(h, digest); ok {
		return int(p.list[place].entries)
	}
	return 0
}

// join counts one more entry of a tenant, and returns its number.
func (ts *tenants) join(digest uint64) uint32 {
	h := ts.hash(digest)
	p := &ts.parts[h>>(64-partBits)]
	place, ok := p.find(h, digest)
	if !ok {
		place = p.add(digest)
		if 8*(p.used+1) > 7*len(p.index) {
			ts.reindex(p)
		} else {
			p.put(h, place)
		}
	} else if p.list[place].entries == 0 {
		p.empty--
	}
	p.list[place].entries++
	return place<<partBits | uint32(h>>(64-partBits))
}

// leave counts one entry less of the tenant with that number.
func (ts *tenants) leave(n uint32) {
	t := ts.at(n)
	t.entries--
	if t.entries == 0 {
		ts.parts[n&(1<<partBits-1)].empty++
	}
}

// forget frees the tenants without entries.
func (ts *tenants) forget() {
	for i := range ts.parts {
		p := &ts.parts[i]
		if p.empty == 0 {
			continue
		}
		if p.empty == p.used {
			*p = part{}
			continue
		}
		p.freeEmpty()
		ts.reindex(p)
	}
}

// freeEmpty frees the tenants without entries. The index still has them afterwards.
func (p *part) freeEmpty() {
	gone := make([]bool, len(p.list)) // and not free before
	for _, place := range p.index {
		if place != 0 && p.list[place-1].entries == 0 {
			gone[place-1] = true
		}
	}
	for place, g := range gone {
		if g {
			p.list[place].setDigest(uint64(p.free))
			p.free = uint32(place) + 1
		}
	}
	p.empty = 0
}

// reindex makes the index of a part again, with room for an eighth more tenants.
func (ts *tenants) reindex(p *part) {
	free := make([]bool, len(p.list))
	n := len(p.list)
	for f := p.free; f != 0; f = uint32(p.list[f-1].digest()) {
		free[f-1] = true
		n--
	}
	p.index = make([]uint32, (n+n/8)*8/7+8)
	p.used = 0
	for place := range p.list {
		if !free[place] {
			p.put(ts.hash(p.list[place].digest()), uint32(place))
		}
	}
}

// slot returns the place in the index where the search for a hash starts.
func (p *part) slot(h uint64) int {
	at, _ := bits.Mul64(h<<partBits, uint64(len(p.index)))
	return int(at)
}

// find returns the place of a tenant in list, and whether it is there.
func (p *part) find(h, digest uint64) (place uint32, ok bool) {
	if len(p.index) == 0 {
		return 0, false
	}
	for at := p.slot(h); ; at = (at + 1) % len(p.index) {
		place := p.index[at]
		if place == 0 {
			return 0, false
		}
		if p.list[place-1].digest() == digest {
			return place - 1, true
		}
	}
}

// put adds a place of list to the index, which has room.
func (p *part) put(h uint64, place uint32) {
	at := p.slot(h)
	for p.index[at] != 0 {
		at = (at + 1) % len(p.index)
	}
	p.index[at] = place + 1
	p.used++
}

// add adds a tenant without entries to list, and returns its place.
func (p *part) add(digest uint64) uint32 {
	if p.free != 0 {
		place := p.free - 1
		p.free = uint32(p.list[place].digest())
		p.list[place] = tenant{}
		p.list[place].setDigest(digest)
		return place
	}
	if len(p.list) == cap(p.list) {
		list := make([]tenant, len(p.list), len(p.list)+len(p.list)/8+8)
		copy(list, p.list)
		p.list = list
	}
	t := tenant{}
	t.setDigest(digest)
	p.list = append(p.list, t)
	return uint32(len(p.list) - 1)
}
