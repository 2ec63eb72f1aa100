package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// A Reader reads a backup. What it returns counts only once [Reader.Next] has returned [io.EOF]: a file
// may be damaged after the part that was read. It is not safe for concurrent use.
type Reader struct {
	in      *bufio.Reader
	digest  hash.Hash // of all that was read
	summary Summary
	last    string // the tenant of the last part; "" before the first
	err     error  // that Next returns from now on
	content bytes.Buffer
}

// NewReader returns a Reader of the backup on in.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 1<<16), digest: sha256.New()}
	start := make([]byte, startSize)
	switch _, err := io.ReadFull(r.in, start); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it is too short for a backup", ErrDamaged)
	case err != nil:
		return nil, err
	}
	c := cursor{rest: start[len(magic)+2:]}
	r.summary.Taken = c.date()
	switch {
	case string(start[:len(magic)]) != magic || start[len(magic)+1] != kind:
		return nil, fmt.Errorf("%w: it is no backup of keyturn", ErrDamaged)
	case start[len(magic)] > version:
		return nil, fmt.Errorf("%w: its version is %d, this one reads up to %d", ErrNewer, start[len(magic)], version)
	case start[len(magic)] != version || c.bad:
		return nil, fmt.Errorf("%w: its start is one that no keyturn writes", ErrDamaged)
	}
	r.note(start)
	return r, nil
}

// Taken returns when the backup began, by the clock of the process that made it.
func (r *Reader) Taken() time.Time { return r.summary.Taken }

// Summary returns what was read so far, and what the whole file has once Next has returned [io.EOF].
func (r *Reader) Summary() Summary { return r.summary }

// Next returns the next tenant of the file. The error is [io.EOF] at the end of a whole file, and wraps
// [ErrDamaged] if the file is not whole.
func (r *Reader) Next() (Entry, error) {
	if r.err != nil {
		return Entry{}, r.err
	}
	e, err := r.next()
	if r.err = err; err != nil && err != io.EOF && !errors.Is(err, ErrDamaged) {
		r.err = fmt.Errorf("backup: the file cannot be read: %w", err)
	}
	return e, r.err
}

func (r *Reader) next() (Entry, error) {
	part, err := r.part()
	if err != nil {
		return Entry{}, err
	}
	switch part {
	case partEnd:
		return Entry{}, r.end()
	case partRing, partMissed:
	default:
		return Entry{}, r.damaged("it has a part of an unknown kind")
	}
	e, err := readEntry(part, r.content.Bytes())
	switch {
	case err != nil:
		return Entry{}, r.damaged(err.Error())
	case r.last != "" && compare(r.last, e.Tenant) >= 0:
		return Entry{}, r.damaged("its tenants are not in order")
	}
	r.count(part)
	r.last = e.Tenant
	return e, nil
}

func (r *Reader) count(part byte) {
	if part == partRing {
		r.summary.Rings++
	} else {
		r.summary.Missed++
	}
}

// part reads one part into r.content, and returns its kind. It takes memory for what is in the file,
// and not for the length that the part claims.
func (r *Reader) part() (byte, error) {
	head := make([]byte, headSize)
	if err := r.full(head); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	switch {
	case n > maxContent:
		return 0, r.damaged(fmt.Sprintf("it has a part of %d bytes", n))
	case head[0] == partEnd && n != endSize:
		return 0, r.damaged("its end is one that no keyturn writes")
	}
	if head[0] == partEnd {
		r.digest.Sum(r.summary.Digest[:0]) // of what comes before the end
	}
	r.note(head)
	r.content.Reset()
	switch got, err := io.CopyN(&r.content, r.in, int64(n)); {
	case err == io.EOF:
		return 0, r.damaged(fmt.Sprintf("it ends in a part, of which %d bytes are missing", int64(n)-got))
	case err != nil:
		return 0, err
	}
	r.note(r.content.Bytes())
	return head[0], nil
}

// end checks the last part, and that nothing comes after it.
func (r *Reader) end() error {
	c := cursor{rest: r.content.Bytes()}
	rings, missed := c.number(8), c.number(8)
	switch {
	case rings != uint64(r.summary.Rings) || missed != uint64(r.summary.Missed):
		return r.damaged(fmt.Sprintf("it says that it has %d rings, and has %d", rings, r.summary.Rings))
	case !bytes.Equal(c.rest, r.summary.Digest[:]):
		return r.damaged("its bytes are not those that were written")
	}
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return r.damaged("something comes after its end")
	case err != io.EOF:
		return err
	}
	return io.EOF
}

// full reads the head of a part.
func (r *Reader) full(b []byte) error {
	_, err := io.ReadFull(r.in, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.damaged("it is truncated: its end is missing")
	}
	return err
}

func (r *Reader) note(b []byte) {
	r.digest.Write(b)
	r.summary.Bytes += int64(len(b))
}

// damaged returns an error that says why the file is refused, and where.
func (r *Reader) damaged(why string) error {
	return fmt.Errorf("%w: %s (at byte %d, after %d rings)", ErrDamaged, why, r.summary.Bytes, r.summary.Rings)
}
