package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const notVerified = "NOT VERIFIED: anyone can write a token that says this. To check it: keyturn verify"

// maxShownBytes is the most that is shown of one part, counted before it is escaped.
const maxShownBytes = 64 << 10

// text returns the inspection for people.
func (i *inspection) text(now time.Time) string {
	var b strings.Builder
	b.WriteString(notVerified + "\n")
	i.header.write(&b, "header")
	i.payload.write(&b, "payload")
	if i.broken == "" {
		fmt.Fprintf(&b, "\nsignature\n  %s, not checked\n", countOf(i.signature, "byte"))
	}
	if len(i.times) > 0 {
		fmt.Fprintf(&b, "\ntimes (now it is %s)\n", stamp(now))
		for _, m := range i.times {
			fmt.Fprintf(&b, "  %s  %s (%s)\n", m.claim, m.words, stamp(m.at))
		}
	}
	if len(i.warnings) > 0 {
		b.WriteString("\nwarnings\n")
		for _, warning := range i.warnings {
			fmt.Fprintf(&b, "  - %s\n", printable(warning, false))
		}
	}
	b.WriteString("\n" + notVerified + "\n")
	return b.String()
}

func (p *part) write(b *strings.Builder, name string) {
	if p.text == "" {
		return
	}
	text := p.text
	if p.value != nil && len(text) <= maxShownBytes && isShallow(text) {
		v := p.value.Clone()
		if v.Indent(jsontext.WithIndent("  "), jsontext.WithIndentPrefix("  ")) == nil {
			text = string(v)
		}
	}
	cut := ""
	if len(p.text) > maxShownBytes {
		text, cut = text[:maxShownBytes], fmt.Sprintf("\n  ... and %s more", countOf(len(p.text)-maxShownBytes, "byte"))
	}
	fmt.Fprintf(b, "\n%s\n  %s%s\n", name, printable(text, p.value != nil && cut == ""), cut)
}

// isShallow reports whether a JSON text is nested so little that indenting it does not multiply its
// size.
func isShallow(text string) bool {
	const most = 32
	depth := 0
	for _, c := range []byte(text) { // brackets in strings count too, which does no harm
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth > most {
			return false
		}
	}
	return true
}

// json returns the inspection for programs. A part that is not strict JSON becomes a string.
func (i *inspection) json() string {
	var b strings.Builder
	b.WriteString(`{"verified":false`)
	if i.broken != "" {
		b.WriteString(`,"error":` + quoteJSON(i.broken))
	}
	i.header.writeJSON(&b, "header")
	i.payload.writeJSON(&b, "payload")
	fmt.Fprintf(&b, `,"signature_bytes":%d,"times":{`, i.signature)
	for n, m := range i.times {
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s:{"time":%s,"words":%s}`, quoteJSON(m.claim), quoteJSON(stamp(m.at)), quoteJSON(m.words))
	}
	b.WriteByte('}')
	if len(i.needs) > 0 {
		b.WriteString(`,"tolerate":["` + strings.ReplaceAll(joinTolerances(i.needs), ", ", `","`) + `"]`)
	}
	b.WriteString(`,"warnings":[`)
	for n, warning := range i.warnings {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteJSON(warning))
	}
	b.WriteString("]}\n")
	return b.String()
}

func (p *part) writeJSON(b *strings.Builder, name string) {
	switch {
	case p.value != nil:
		fmt.Fprintf(b, `,%q:%s`, name, compactJSON(p.value))
	case p.text != "":
		fmt.Fprintf(b, `,%q:%s`, name+"_text", quoteJSON(p.text))
	}
}
