package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// A Writer writes a backup. It is not safe for concurrent use.
type Writer struct {
	out     *bufio.Writer
	digest  hash.Hash // of all that was written
	summary Summary
	last    string // the tenant of the last part; "" before the first
	part    []byte // of the part that is written, kept for its memory
}

// NewWriter returns a Writer that begins a backup on out. taken is the time of now.
func NewWriter(out io.Writer, taken time.Time) (*Writer, error) {
	if !isDate(taken) {
		return nil, fmt.Errorf("backup: the time is %v, which is no date of this format", taken)
	}
	w := &Writer{out: bufio.NewWriterSize(out, 1<<16), digest: sha256.New()}
	w.summary.Taken = time.UnixMilli(taken.UnixMilli()).UTC()
	return w, w.write(appendDate(append([]byte(magic), version, kind), taken))
}

// Add writes what was found of a tenant. Tenants come in the order of their buckets, and of their names
// in one bucket. A ring that the file has no form for, such as one with a field's name of more than
// 65535 bytes, is written as missed; only a person who writes to the store can make one.
func (w *Writer) Add(e Entry) error {
	switch {
	case !isTenant(e.Tenant):
		return fmt.Errorf("backup: %q is no name of a tenant", e.Tenant)
	case w.last != "" && compare(w.last, e.Tenant) >= 0:
		return fmt.Errorf("backup: tenant %q comes after %q", e.Tenant, w.last)
	}
	w.last = e.Tenant
	if e.Missed == "" {
		content, err := appendRing(w.begin(), e.Tenant, e.Ring)
		if err == nil {
			w.summary.Rings++
			return w.end(partRing, content)
		}
		e.Missed = err.Error()
	}
	w.summary.Missed++
	reason := strings.ToValidUTF8(e.Missed, "\uFFFD")
	for len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return w.end(partMissed, appendText(appendText(w.begin(), e.Tenant), reason))
}

// Close ends the file, and returns what it has. Without it the file is a damaged one. It does not close
// what the Writer writes to.
func (w *Writer) Close() (Summary, error) {
	w.digest.Sum(w.summary.Digest[:0])
	b := binary.BigEndian.AppendUint64(w.begin(), uint64(w.summary.Rings))
	b = binary.BigEndian.AppendUint64(b, uint64(w.summary.Missed))
	if err := w.end(partEnd, append(b, w.summary.Digest[:]...)); err != nil {
		return Summary{}, err
	}
	return w.summary, w.out.Flush()
}

// Summary returns what was written so far.
func (w *Writer) Summary() Summary { return w.summary }

// begin returns the beginning of a part, to which its content is appended.
func (w *Writer) begin() []byte { return append(w.part[:0], make([]byte, headSize)...) }

// end writes a part that began with begin.
func (w *Writer) end(part byte, b []byte) error {
	w.part = b
	b[0] = part
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-headSize))
	return w.write(b)
}

func (w *Writer) write(b []byte) error {
	w.digest.Write(b)
	w.summary.Bytes += int64(len(b))
	_, err := w.out.Write(b)
	return err
}
