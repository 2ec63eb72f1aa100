package main

import (
	"bytes"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// phrases are the turns of phrase that stop a reader. The list is a symptom; docs/CONTRIBUTING.md
// has the rules.
var phrases = regexp.MustCompile(`(?i)\b(anew|whoever|nobody|somebody|for good|is none|are none|what is|what was|what has|all that|no more|but for|but that)\b`)

// A file is a Go file or a page of the tree, with the words of its prose.
type file struct {
	name  string // slashes, from the root
	page  bool   // Markdown; otherwise the comments of a Go file
	words int
	hits  []hit
}

// A hit is one phrase in one line.
type hit struct {
	line int
	text string // the whole line, without the space around it
}

func (f file) dir() string { return path.Dir(f.name) }

// A tally adds up files.
type tally struct{ words, hits int }

func (t tally) rate() float64 {
	if t.words == 0 {
		return 0
	}
	return 1000 * float64(t.hits) / float64(t.words)
}

func (t tally) String() string {
	return fmt.Sprintf("%.1f in 1000 (%d in %d words)", t.rate(), t.hits, t.words)
}

// total adds up the comments and the pages of files.
func total(files []file) (comments, pages tally) {
	for _, f := range files {
		t := &comments
		if f.page {
			t = &pages
		}
		t.words += f.words
		t.hits += len(f.hits)
	}
	return comments, pages
}

// dirs returns the folders of files, sorted.
func dirs(files []file) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.dir())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// count reads all pages and all Go files of root that are no tests.
func count(root fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if base == "testdata" || base == "node_modules" || strings.HasPrefix(base, ".") && base != "." {
				return fs.SkipDir
			}
			return nil
		}
		page := path.Ext(base) == ".md"
		if !page && (path.Ext(base) != ".go" || strings.HasSuffix(base, "_test.go")) {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f := file{name: name, page: page}
		if page {
			f.add(1, string(text))
		} else {
			f.addComments(text)
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// addComments adds all comments of a Go file, those behind code included.
func (f *file) addComments(src []byte) {
	set := token.NewFileSet()
	var s scanner.Scanner
	s.Init(set.AddFile(f.name, -1, len(src)), src, nil, scanner.ScanComments)
	for {
		pos, tok, text := s.Scan()
		switch tok {
		case token.EOF:
			return
		case token.COMMENT:
			f.add(set.Position(pos).Line, strings.TrimPrefix(text, "//"))
		}
	}
}

// add counts the words and the phrases of text, whose first line is the file's line.
func (f *file) add(line int, text string) {
	for l := range bytes.Lines([]byte(text)) {
		prose := strings.TrimSpace(string(l))
		f.words += len(strings.Fields(prose))
		for range phrases.FindAllString(prose, -1) {
			f.hits = append(f.hits, hit{line, prose})
		}
		line++
	}
}
