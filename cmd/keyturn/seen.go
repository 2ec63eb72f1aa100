package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// seenFiles are the files that a configuration was read from, with a sum of each. They are read again
// to tell whether the configuration has changed. The zero seenFiles has none.
type seenFiles struct {
	files  []seenFile
	byPath map[string]int // index in files
	pipe   string         // the name of one that can be read once only; "" without one
	tenant hash.Hash      // of the bytes that were read since beginTenant; nil outside
	looks  int            // of again
}

type seenFile struct {
	path   string
	use    fileUse
	folder bool
	sum    server.Sum
	stamp  fileStamp // of the file that was read; zero if its content has to be read to tell
}

// A fileStamp is what the file system says of a file. Linux changes the time of the last change of an inode
// (ctime) with each write to its content and with each change of who may use it, and no program can set
// it. A file that another one has replaced, also behind a link, is another inode. So a file whose stamp is
// as it was has the content that it had.
type fileStamp struct {
	device, inode uint64
	size, changed int64 // changed is the ctime, in nanoseconds
}

// stampOf returns the stamp of a file that was read just now, or none if it may have changed again
// without another ctime: the kernel's clock for these ticks every few milliseconds, and that of a file
// server may differ from ours.
func stampOf(info fs.FileInfo, now time.Time) fileStamp {
	const racy = 5 * time.Second
	if s, ok := statOf(info); ok && info.Mode().IsRegular() && s.changed < now.Add(-racy).UnixNano() {
		return s
	}
	return fileStamp{}
}

// isAsItWas reports whether a file has the stamp that it was read with.
func (f *seenFile) isAsItWas() bool {
	if f.stamp == (fileStamp{}) {
		return false
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return false
	}
	s, ok := statOf(info)
	return ok && s == f.stamp
}

// note adds a file that was read, or could not be.
func (s *seenFiles) note(name, path string, use fileUse, f *inputFile, err error) {
	if s == nil {
		return
	}
	if err == nil && !f.info.Mode().IsRegular() {
		s.pipe = name
	}
	seen := seenFile{path: path, use: use, sum: sumOf(use, f, err)}
	if f != nil {
		seen.stamp = stampOf(f.info, time.Now())
	}
	s.add(seen)
}

func (s *seenFiles) add(f seenFile) {
	if s.tenant != nil {
		s.tenant.Write(f.sum[:])
	}
	if s.byPath == nil {
		s.byPath = make(map[string]int)
	}
	if i, known := s.byPath[f.path]; known {
		if s.files[i].sum != f.sum { // it changed between two readings: what Sum returns will differ
			s.files[i].sum, s.files[i].stamp = sha256.Sum256(slices.Concat(s.files[i].sum[:], f.sum[:])), fileStamp{}
		}
		return
	}
	s.byPath[f.path] = len(s.files)
	s.files = append(s.files, f)
}

// noteOnce notes a file that is read at the start alone, or followed in another way, by its name. A
// configuration with a pipe among its files cannot be read again.
func (s *seenFiles) noteOnce(f *inputFile) {
	if s != nil && !f.info.Mode().IsRegular() {
		s.pipe = f.name
	}
}

// unseen returns a copy of a that notes no files.
func (a *app) unseen() *app {
	b := *a
	b.seen = nil
	return &b
}

// sumOf returns the sum of a file, or of the error of reading it. A file that others can change now
// has another sum, so that the configuration is read again when that is mended.
func sumOf(use fileUse, f *inputFile, err error) server.Sum {
	if err == nil {
		err = f.refuse(use)
	}
	if err != nil {
		return sha256.Sum256([]byte("cannot be read: " + causeOf(err).Error()))
	}
	content := sha256.Sum256(f.text)
	return sha256.Sum256(append([]byte("content: "), content[:]...))
}

// sum returns the sum of all files as they were read.
func (s *seenFiles) sum() server.Sum {
	h := sha256.New()
	for _, f := range s.files {
		fmt.Fprintf(h, "%q %x\n", f.path, f.sum)
	}
	return server.Sum(h.Sum(nil))
}

// readAll is how often all files are read, and not only those with another stamp: a file system may not
// keep its promises. With the default of reload.every that is every five minutes.
const readAll = 30

// again looks at all files, and returns what sum returned if they are as they were.
func (s *seenFiles) again() server.Sum {
	now := seenFiles{files: slices.Clone(s.files)}
	s.looks++
	for i := range now.files {
		f := &now.files[i]
		if s.looks%readAll != 0 && f.isAsItWas() {
			continue
		}
		if f.folder {
			f.sum = sumOfFolder(tenantFiles(f.path))
			continue
		}
		in, err := openInput(f.path, openRegular)
		if f.sum = sumOf(f.use, in, err); f.sum == s.files[i].sum && in != nil {
			s.files[i].stamp = stampOf(in.info, time.Now())
		}
		if in != nil {
			clear(in.text)
		}
	}
	return now.sum()
}

// noteFolder adds a folder by the names of its files.
func (s *seenFiles) noteFolder(path string, names []string, err error) {
	if s != nil {
		s.add(seenFile{path: path, folder: true, sum: sumOfFolder(names, err)})
	}
}

func sumOfFolder(names []string, err error) server.Sum {
	if err != nil {
		return sha256.Sum256([]byte("cannot be read: " + causeOf(err).Error()))
	}
	return sha256.Sum256([]byte(fmt.Sprintf("%q", names)))
}

// beginTenant begins a sum of what a tenant is made of, and endTenant returns it.
func (s *seenFiles) beginTenant(config []byte) {
	if s != nil {
		s.tenant = sha256.New()
		s.tenant.Write(config)
	}
}

func (s *seenFiles) endTenant() (sum server.Sum) {
	if s != nil {
		sum = server.Sum(s.tenant.Sum(nil))
		s.tenant = nil
	}
	return sum
}

// tenantFiles returns the names of the files in tenants_dir that hold a tenant, sorted. Others are
// what editors leave (.acme.yaml.swp, acme.yaml~, #acme.yaml#), and the folders and links in which
// Kubernetes keeps the versions of a ConfigMap (..data, ..2026_01_01).
func tenantFiles(folder string) (names []string, err error) {
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
			continue
		}
		names = append(names, name)
	}
	return names, err
}

// openNamed returns what opens a file that a flag, or a field of the file of --config, names. A file
// that is read again is not waited for.
func (a *app) openNamed() func(string) (*os.File, error) {
	if a.reloading {
		return openRegular
	}
	return os.Open
}

// onceHandler hands on each record once. A file that is read several times logs the same each time.
type onceHandler struct {
	slog.Handler
	said *saidLines
}

type saidLines struct {
	mu    sync.Mutex // guards lines
	lines map[server.Sum]bool
}

// Handle implements [slog.Handler].
func (h onceHandler) Handle(ctx context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&text, " %q=%q", a.Key, a.Value); return true })
	sum := server.Sum(sha256.Sum256([]byte(text.String())))
	h.said.mu.Lock()
	known := h.said.lines[sum]
	h.said.lines[sum] = true
	h.said.mu.Unlock()
	if known {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}
