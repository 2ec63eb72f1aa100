package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"time"
)

const (
	defaultReload = 10 * time.Second

	// settleFor is how long a new content must stay the same before it counts. A program that writes
	// a file in several steps gets that time between two of them.
	settleFor = time.Second
)

// A Reload says when a server reads its files again.
type Reload struct {
	// Every is how often. Zero means 10 s, and a negative one only at a signal.
	Every time.Duration

	// Settle is how long a new content must stay the same before it counts. Zero means 1 s.
	Settle time.Duration

	// Signal has the files read at once, with each value, whatever that is. It may be nil.
	Signal <-chan os.Signal

	// Files are those that the Config was read from. A server without them follows the KEK file alone.
	Files Files

	// Sum is what Files.Sum was when the Config was read.
	Sum Sum

	// Warnings are those that the log has at the start.
	Warnings []string
}

// A File is a file whose content a running server follows. It is read again and again, by its name,
// and its content compared. Notifications of the file system are not used: Kubernetes replaces a
// link some folders away, and they miss that (kubernetes/kubernetes#112677, spf13/viper#284).
//
// What was read last and could be used stays in use until another content can be used. A content
// counts once it has been read twice, a second apart, so that half of a file does not
// (kubernetes/kubernetes#93686).
type File struct {
	name  string
	read  func() ([]byte, error)
	apply func(content []byte) error // by the server

	inUse Sum    // of the content that was applied last
	next  Sum    // of another content that was read last; zero without one
	said  string // the error that the log has
}

// A Sum is the SHA-256 of contents. The zero Sum stands for none.
type Sum [sha256.Size]byte

// NewFile returns a file whose content has been read. The log calls it name. read reads it again. It
// must bound what it returns, which the server overwrites, and not wait for a pipe. Its errors get
// into the log, so they must not hold a part of the content.
func NewFile(name string, content []byte, read func() ([]byte, error)) *File {
	return &File{name: name, read: read, inUse: sha256.Sum256(content)}
}

// An outcome is what a look at a file led to.
type outcome int

const (
	unchanged outcome = iota
	unsettled         // there is another content; it counts if the next look finds it again
	applied
	failed
)

var errEmptyFile = errors.New("it is empty")

// look reads the file, and applies its content if that is another one than is in use and the same
// as the look before has found.
func (f *File) look() (outcome, error) {
	content, err := f.read()
	defer clear(content)
	if err == nil && len(content) == 0 {
		err = errEmptyFile
	}
	if err != nil {
		f.next = Sum{}
		return failed, err
	}
	before, now := f.next, Sum(sha256.Sum256(content))
	f.next = now
	switch now {
	case f.inUse:
		f.next = Sum{}
		return unchanged, nil
	case before:
		if err := f.apply(content); err != nil {
			return failed, err // and tried again with the next look: what it lacks may come
		}
		f.inUse, f.next = now, Sum{}
		return applied, nil
	}
	return unsettled, nil
}

// A watcher reads files again and again.
type watcher struct {
	files  []*File
	config *follower // nil without Reload.Files
	reload Reload
	log    *slog.Logger
}

// run watches the files until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-w.nextLook():
		case <-w.reload.Signal:
			asked = true
		}
		if asked && len(w.files) == 0 && w.config == nil {
			w.log.Info("nothing to reload: no file is followed")
		}
		for _, f := range w.files {
			w.look(ctx, f, asked)
		}
		if w.config != nil {
			w.config.look(ctx, asked)
		}
	}
}

// nextLook returns when the files are read next unless there is a signal. A reload may have changed
// that.
func (w *watcher) nextLook() <-chan time.Time {
	every := w.reload.Every
	if w.config != nil {
		every = w.config.every()
	}
	if every <= 0 || len(w.files) == 0 && w.config == nil {
		return nil
	}
	return time.After(every)
}

// settle waits until a content must be the same again, or ctx ends.
func settle(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// look looks at a file, and once more if its content is another one. It logs what came of that: an
// error once, or whenever the operator has asked.
func (w *watcher) look(ctx context.Context, f *File, asked bool) {
	got, err := f.look()
	if got == unsettled {
		if settle(ctx, w.reload.Settle); ctx.Err() != nil {
			return
		}
		got, err = f.look()
	}
	said := f.said
	f.said = ""
	switch {
	case got == failed:
		if f.said = err.Error(); f.said != said || asked {
			w.log.Warn("a file is not reloaded: the last good version stays in use", "file", f.name, "err", err)
		}
	case got == applied:
		w.log.Info("a file is reloaded", "file", f.name)
	case got == unchanged && (said != "" || asked):
		w.log.Info("a file is as it was", "file", f.name)
	case got == unsettled:
		f.said = said // and the next look finds out
	}
}
