// Command words measures how this repository writes: how often its comments and pages use the
// turns of phrase that stop a reader, and with -code how its packages comment and cut their code.
//
//	go run ./internal/words                                   the rates, and each hit if one is too high
//	go run ./internal/words -folders                          the rates and hits of each folder
//	go run ./internal/words -code rotation rotation/internal/protocol
//
// It exits with 1 if the comments or the pages exceed the limit. Run it from the root.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

// limit is how often, in 1000 words, the phrases may stand in all comments, and in all pages.
const limit = 1.0

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "words:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, args []string) error {
	flags := flag.NewFlagSet("words", flag.ContinueOnError)
	folders := flags.Bool("folders", false, "print the rates and the hits of each folder")
	code := flags.Bool("code", false, "print comment density and function lengths of the packages in the folders named")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *code {
		return printCode(w, flags.Args())
	}
	files, err := count(os.DirFS("."))
	if err != nil {
		return err
	}
	return printWords(w, files, *folders)
}

// printWords prints the rates of comments and pages. It returns an error if one exceeds the limit,
// after printing each hit.
func printWords(w io.Writer, files []file, folders bool) error {
	comments, pages := total(files)
	if folders {
		printFolders(w, files)
	}
	tooHigh := comments.rate() > limit || pages.rate() > limit
	if folders || tooHigh {
		for _, f := range files {
			for _, h := range f.hits {
				fmt.Fprintf(w, "%s:%d: %s\n", f.name, h.line, h.text)
			}
		}
	}
	fmt.Fprintf(w, "comments: %s\n", comments)
	fmt.Fprintf(w, "pages:    %s\n", pages)
	if tooHigh {
		return fmt.Errorf("more than %.0f in 1000 words: docs/CONTRIBUTING.md says how we write", limit)
	}
	return nil
}

func printFolders(w io.Writer, files []file) {
	for _, dir := range dirs(files) {
		var in []file
		for _, f := range files {
			if f.dir() == dir {
				in = append(in, f)
			}
		}
		comments, pages := total(in)
		fmt.Fprintf(w, "%-28s comments %-32s pages %s\n", dir, comments, pages)
	}
}

// printCode prints, of each folder, the share of comment lines and the lengths of its functions.
func printCode(w io.Writer, dirs []string) error {
	for _, dir := range dirs {
		p, err := measure(dir, false)
		if err != nil {
			return err
		}
		p50, p90, longest := p.lengths()
		fmt.Fprintf(w, "%-28s %5d lines, %2.0f %% comments; functions p50 %d, p90 %d, max %d lines; %d exported names, undocumented: %q\n",
			dir, p.lines, p.density(), p50, p90, longest, p.exported, p.undocumented)
	}
	return nil
}
