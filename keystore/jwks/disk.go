package jwks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// A savedSet is the last good answer, on disk. It holds no validator, so the first request after a
// restart asks for the whole set: a file that was tampered with counts only until the issuer
// answers.
type savedSet struct {
	Version int       `json:"version"`
	Source  string    `json:"source"` // the file's name: a copy under another name is not taken
	Fetched time.Time `json:"fetched"`
	Set     []byte    `json:"set"`
}

const savedVersion = 1

// fileName names the file of an endpoint. It does not show the URL. The settings are a part of it: a
// source must not be given what only the settings of another one let in. The name of version 1 was of
// the URL alone.
func (e *endpoint) fileName() string {
	trust := "2 "
	if p := e.c.cfg.Proxy; p != nil {
		trust += p.Scheme + " " + hostPort(p) + " " // without a password
	}
	if t := e.c.cfg.TLS; t != nil && t.RootCAs != nil {
		trust += "own authorities " // a pool does not say which
	}
	sum := sha256.Sum256([]byte(trust + e.file))
	return hex.EncodeToString(sum[:]) + ".jwks"
}

// ours matches the names of files that a Client makes, of any version.
var ours = regexp.MustCompile(`^[0-9a-f]{64}\.jwks(\.[0-9]+\.tmp)?$`)

// sweep removes files that are too old for any source, once a day: those of sources that are gone, of
// settings that were changed, and of processes that ended amid a write. A file that is in use is
// written again within the hour.
func (c *Client) sweep() {
	now := c.now()
	c.mu.Lock()
	due := c.swept.IsZero() || now.Sub(c.swept).Abs() >= maxStaleIfError
	if due {
		c.swept = now
	}
	c.mu.Unlock()
	if !due {
		return
	}
	dir, err := c.folder(false)
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	for _, entry := range entries {
		is, gone := entry.Info()
		if gone == nil && ours.MatchString(entry.Name()) && is.Mode().IsRegular() && now.Sub(is.ModTime()) >= maxStaleIfError {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	if err != nil {
		c.logger.Warn("jwks: old sets on disk were not removed", "error", err)
	}
}

// save writes the last good answer, and reports whether it did. body is nil after a 304: then the
// set that the file holds gets a new time.
func (e *endpoint) save(body []byte, fetched time.Time) bool {
	err := e.write(body, fetched)
	if err != nil {
		e.c.logger.Warn("jwks: the last good set was not saved", "tenant", e.tenant, "error", err)
		return false
	}
	e.c.sweep()
	return true
}

// forget removes the file of a key that the issuer no longer has.
func (e *endpoint) forget() {
	dir, err := e.c.folder(false)
	if err == nil {
		err = os.Remove(filepath.Join(dir, e.fileName()))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.c.logger.Warn("jwks: a key on disk that is gone was not removed", "tenant", e.tenant, "error", err)
	}
}

func (e *endpoint) write(body []byte, fetched time.Time) error {
	name := e.fileName()
	dir, err := e.c.folder(true)
	if err != nil {
		return err
	}
	if body == nil {
		old, err := readSaved(dir, name, e.maxSaved())
		if err != nil {
			return err
		}
		body = old.Set
	}
	doc, err := json.Marshal(savedSet{savedVersion, name, fetched.UTC(), body})
	if err != nil {
		return errors.New("cannot be written as JSON")
	}
	file, err := os.CreateTemp(dir, name+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(doc)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// maxSaved is the size of the largest file: base64 and the rest.
func (e *endpoint) maxSaved() int { return 2*e.cfg.reading().bytes() + 4<<10 }

// readSaved reads a file of at most so many bytes that no other user can have written. It never
// waits: a pipe, which might have no writer, is refused.
func readSaved(dir, name string, most int) (*savedSet, error) {
	path := filepath.Join(dir, name)
	at, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !at.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	is, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !os.SameFile(at, is):
		return nil, errors.New("another file than a moment ago")
	case !onlyOurs(is):
		return nil, errors.New("others own the file or may write it, and so choose the keys: want mode 0600")
	}
	doc, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err != nil {
		return nil, err
	}
	s := new(savedSet)
	if len(doc) > most || json.Unmarshal(doc, s) != nil || s.Version != savedVersion || s.Source != name {
		return nil, errors.New("not a file that this version wrote")
	}
	return s, nil
}

// A folderUse says what to do with a folder.
type folderUse int

const (
	asItIs   folderUse = iota // only our user can put files there
	repaired                  // once its mode is 0700
	inside                    // in a folder of ours inside it
)

// judgeFolder decides how to use a folder that holds entries. Kubernetes gives a volume with fsGroup
// to root and lets that group write, in all folders and files that the volume has. A folder that
// holds our files alone is made ours again. Any other is left as it is: a program that runs as root
// must not close /tmp to everyone else.
func judgeFolder(is fs.FileInfo, entries []string) folderUse {
	switch {
	case onlyOurs(is):
		return asItIs
	case isOurs(is) && len(entries) > 0 && !slices.ContainsFunc(entries, func(name string) bool { return !ours.MatchString(name) }):
		return repaired
	}
	return inside
}

// folder returns the folder that the files are in: Config.Dir, or one inside it if other users can
// put files there, who would choose the keys. With create it makes it.
func (c *Client) folder(create bool) (string, error) {
	dir := c.cfg.Dir
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
	}
	is, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	var names []string
	if isOurs(is) && !onlyOurs(is) {
		names = namesIn(dir)
	}
	switch judgeFolder(is, names) {
	case asItIs:
		return dir, nil
	case repaired:
		return dir, c.repair(dir, is)
	}
	dir = filepath.Join(dir, fmt.Sprintf("keyturn-%d", os.Geteuid()))
	if create {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	is, err = os.Lstat(dir) // whoever may write Dir can put a link there
	switch {
	case err != nil:
		return "", err
	case !is.IsDir() || !isOurs(is):
		return "", fmt.Errorf("others own the folder or may write there, and so choose the keys, and %s is not ours: want mode 0700", dir)
	case !onlyOurs(is):
		return dir, c.repair(dir, is)
	}
	return dir, nil
}

// repair makes a folder ours alone: the one that is, even if another one has its name by now. Files in
// it that others could write are not read: see readSaved.
func (c *Client) repair(dir string, is fs.FileInfo) error {
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	now, err := folder.Stat(".")
	switch {
	case err != nil:
		return err
	case !os.SameFile(now, is):
		return fmt.Errorf("%s is another folder than a moment ago", dir)
	}
	if err := folder.Chmod(".", 0o700); err != nil {
		return err
	}
	c.logger.Warn("jwks: others could write the folder of the last good sets: its mode is 0700 now", "folder", dir)
	return nil
}

// namesIn returns the names of what a folder holds, or one that is not ours if it cannot be read.
func namesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{""}
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// restore reads the last good answer from disk, if it can still be trusted. It is called before any
// other goroutine has the endpoint.
func (e *endpoint) restore() {
	if e.c.cfg.Dir == "" {
		return
	}
	var s *savedSet
	dir, err := e.c.folder(false)
	if err == nil {
		s, err = readSaved(dir, e.fileName(), e.maxSaved())
	}
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	now, got := e.c.now(), &outcome{generation: 1}
	if err == nil {
		switch m := e.m.restored(s.Fetched, now); {
		case s.Fetched.After(now):
			err = errors.New("it was fetched in the future")
		case m.state(now) == Expired:
			err = errors.New("it is too old")
		default:
			if failed := e.readSet(s.Set, got); failed != nil {
				err = failed
			}
		}
	}
	if err != nil {
		e.c.logger.Warn("jwks: the last good set on disk is not used", "tenant", e.tenant, "error", err)
		return
	}
	got.sum = sha256.Sum256(s.Set)
	e.m = e.m.restored(s.Fetched, now)
	e.set, e.restored = newSet(got), got.keys
	e.previous.sum, e.previous.generation = got.sum, got.generation
	e.publishLocked()
}
