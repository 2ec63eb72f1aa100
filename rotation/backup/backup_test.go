package backup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/backup"
	"github.com/keyturn/keyturn/rotation/store"
)

var taken = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// entries are those of the vector: in the order of a file.
func entries() []backup.Entry {
	fields := map[string][]byte{"head": []byte("h"), "k:a": {0, 0xff}, "dead": {}, "_new": []byte("x"), "v:\n:": []byte("accepted")}
	all := []backup.Entry{
		{Tenant: "acme", Ring: store.Snapshot{Now: taken.Add(time.Second), Fields: fields}},
		{Tenant: "globex", Missed: "its ring has 2000000 bytes, at most 1048576"},
		{Tenant: "Zoë", Ring: store.Snapshot{Now: taken.Add(2 * time.Second), Fields: map[string][]byte{}}},
	}
	slices.SortFunc(all, func(a, b backup.Entry) int { return store.BucketOf(a.Tenant) - store.BucketOf(b.Tenant) })
	return all
}

func write(t testing.TB, all []backup.Entry) ([]byte, backup.Summary) {
	t.Helper()
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, taken)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	s, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), s
}

func read(file io.Reader) (all []backup.Entry, s backup.Summary, err error) {
	r, err := backup.NewReader(file)
	for err == nil {
		var e backup.Entry
		if e, err = r.Next(); err == nil {
			all = append(all, e)
		}
	}
	if err != io.EOF {
		return all, s, err
	}
	if _, again := r.Next(); again != io.EOF {
		return all, s, fmt.Errorf("Next after the end: %w", again)
	}
	return all, r.Summary(), nil
}

func same(a, b backup.Entry) bool {
	return a.Tenant == b.Tenant && a.Missed == b.Missed && a.Ring.Now.Equal(b.Ring.Now) && maps.EqualFunc(a.Ring.Fields, b.Ring.Fields, bytes.Equal)
}

func TestReadsWhatWasWritten(t *testing.T) {
	file, wrote := write(t, entries())
	all, s, err := read(bytes.NewReader(file))
	if err != nil || !slices.EqualFunc(all, entries(), same) {
		t.Errorf("read %+v, %v", all, err)
	}
	if s != wrote || s.Rings != 2 || s.Missed != 1 || s.Bytes != int64(len(file)) || !s.Taken.Equal(taken) {
		t.Errorf("summary = %+v, wrote %+v", s, wrote)
	}
	if empty, _ := write(t, nil); len(empty) == 0 {
		t.Error("an empty backup has no bytes")
	} else if all, _, err := read(bytes.NewReader(empty)); err != nil || len(all) != 0 {
		t.Errorf("an empty backup: %v, %v", all, err)
	}
}

// The bytes are those of docs/formats.md.
func TestVector(t *testing.T) {
	text, err := os.ReadFile("testdata/rings.ktb.hex")
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if file, _ := write(t, entries()); !bytes.Equal(file, want) {
		t.Errorf("wrote %x", file)
	}
	if all, _, err := read(bytes.NewReader(want)); err != nil || !slices.EqualFunc(all, entries(), same) {
		t.Errorf("read %+v, %v", all, err)
	}
}

// A file that lacks its end, or of which a byte was changed, is refused, wherever that is.
func TestDamagedFileIsRefused(t *testing.T) {
	file, _ := write(t, entries())
	for n := range file {
		if _, _, err := read(bytes.NewReader(file[:n])); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		changed := bytes.Clone(file)
		changed[n] ^= 1
		if _, _, err := read(bytes.NewReader(changed)); !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, backup.ErrNewer) {
			t.Errorf("byte %d changed: %v", n, err)
		}
	}
	if _, _, err := read(bytes.NewReader(append(bytes.Clone(file), 0))); !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), "after its end") {
		t.Errorf("with one more byte: %v", err)
	}
	newer := bytes.Clone(file)
	newer[2] = 2
	if _, _, err := read(bytes.NewReader(newer)); !errors.Is(err, backup.ErrNewer) || errors.Is(err, backup.ErrDamaged) {
		t.Errorf("version 2: %v", err)
	}
}

// A file whose digest is right can still not have two rings of one tenant, or be in another order.
func TestReorderedFileIsRefused(t *testing.T) {
	all := entries()
	file, _ := write(t, all)
	parts := split(t, file)
	for name, order := range map[string][]int{"swapped": {1, 0, 2}, "twice": {0, 0, 1, 2}, "removed": {0, 1}, "none": {}} {
		if _, _, err := read(bytes.NewReader(join(parts, order))); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := read(bytes.NewReader(join(parts, []int{0, 1, 2}))); err != nil {
		t.Errorf("as it was: %v", err)
	}
	w, err := backup.NewWriter(io.Discard, taken)
	if err != nil || w.Add(all[1]) != nil || w.Add(all[0]) == nil {
		t.Error("the Writer takes tenants in another order")
	}
}

// split returns the start of a file and its parts, of which the last is the end.
func split(t *testing.T, file []byte) (parts [][]byte) {
	t.Helper()
	parts = append(parts, file[:12])
	for rest := file[12:]; len(rest) > 0; {
		n := 5 + int(binary.BigEndian.Uint32(rest[1:]))
		parts, rest = append(parts, rest[:n]), rest[n:]
	}
	return parts
}

// join makes a file of the parts of that order, with the right digest of those.
func join(parts [][]byte, order []int) []byte {
	file := bytes.Clone(parts[0])
	for _, i := range order {
		file = append(file, parts[1+i]...)
	}
	digest := sha256.Sum256(file)
	end := bytes.Clone(parts[len(parts)-1])
	copy(end[len(end)-32:], digest[:])
	return append(file, end...)
}

// A length that a part claims takes no memory before its bytes are there.
func TestOversizedPartTakesNoMemory(t *testing.T) {
	file, _ := write(t, nil)
	start := file[:12]
	part := func(n uint32, content ...byte) []byte {
		return append(binary.BigEndian.AppendUint32(append(bytes.Clone(start), 'R'), n), content...)
	}
	for name, file := range map[string][]byte{
		"4 GiB": part(1<<32 - 1), "8 MiB": part(8 << 20), "4 thousand million fields": part(20, append([]byte("\x00\x04acme\x00\x00\x01\x9a\x00\x00\x00\x00"), 0xff, 0xff, 0xff, 0xff, 0, 0)...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := read(bytes.NewReader(file))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, backup.ErrDamaged) || used > 1<<20 {
			t.Errorf("%s: %v, %d bytes of memory", name, err, used)
		}
	}
}

// What the file has no form for does not end the backup of the others.
func TestRingWithoutFormIsMissed(t *testing.T) {
	long := map[string][]byte{strings.Repeat("n", 1<<16): nil}
	file, s := write(t, []backup.Entry{{Tenant: "acme", Ring: store.Snapshot{Now: taken, Fields: long}}})
	all, _, err := read(bytes.NewReader(file))
	if err != nil || s.Missed != 1 || len(all) != 1 || !strings.Contains(all[0].Missed, "name of 65536 bytes") {
		t.Errorf("%+v, %v", all, err)
	}
	file, _ = write(t, []backup.Entry{{Tenant: "acme", Missed: "a\xff" + strings.Repeat("é", 400)}})
	if all, _, err = read(bytes.NewReader(file)); err != nil || len(all[0].Missed) > 512 {
		t.Errorf("a long reason: %+v, %v", all, err)
	}
}

// A reader's error is not a damaged file: the disk may be at fault, and the file whole.
func TestReadErrorIsNotDamage(t *testing.T) {
	file, _ := write(t, entries())
	broken := errors.New("broken")
	for _, n := range []int{0, 12, 14, 30, len(file)} {
		in := io.MultiReader(bytes.NewReader(file[:n]), errorReader{broken})
		if _, _, err := read(in); !errors.Is(err, broken) || errors.Is(err, backup.ErrDamaged) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// FuzzReader checks that what can be read is written again as the same bytes.
func FuzzReader(f *testing.F) {
	file, _ := write(f, entries())
	f.Add(file)
	f.Add(file[:len(file)-1])
	empty, _ := write(f, nil)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := backup.NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		var b bytes.Buffer
		w, err := backup.NewWriter(&b, r.Taken())
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				if !errors.Is(err, backup.ErrDamaged) {
					t.Fatal(err)
				}
				return
			}
			if err := w.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := w.Close(); err != nil || s != r.Summary() || !bytes.Equal(b.Bytes(), file) {
			t.Fatalf("written again: %+v and %+v, %v, %x", s, r.Summary(), err, b.Bytes())
		}
	})
}
