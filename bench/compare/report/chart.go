package main

import (
	"fmt"
	"html"
	"io"
)

// A bar of the chart.
type bar struct {
	label, name string
	ours        bool
}

var chart = []struct {
	title string
	bars  []bar
}{
	{"seen before (1 000 tokens)", []bar{
		{"keyturn", hit(1000, "keyturn"), true},
		{"golang-jwt behind otter", hit(1000, "golang-jwt+otter"), false},
		{"Kubernetes' token cache", hit(1000, "kubernetes"), false},
		{"fast-jwt's cache (Node)", "compare.Node/lib=fast-jwt/cache=on/tokens=1000", false},
	}},
	{"seen for the first time", []bar{
		{"keyturn", missHS256 + "keyturn", true},
		{"fast-jwt (Node)", "compare.Node/lib=fast-jwt/cache=off", false},
		{"jsonwebtoken (Node)", "compare.Node/lib=jsonwebtoken/key=prepared", false},
		{"golang-jwt", verifyHS256 + "golang-jwt", false},
		{"go-jose", verifyHS256 + "go-jose", false},
		{"jwx v2", verifyHS256 + "jwx", false},
	}},
}

// Sizes of the chart, in pixels.
const (
	chartWidth = 720
	barLeft    = 210
	barRight   = chartWidth - 90 // the longest bar's value stands behind it
	rowHeight  = 24
	barHeight  = 14
)

const chartHead = `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="Time to check one token">
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.small { fill: #59636e; }
.other { fill: #9aa4af; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small { fill: #9198a1; }
.other { fill: #656c76; }
.ours { fill: #4493f8; }
}
</style>
<text class="title" x="8" y="20">Time to check one HS256 token of 413 bytes, on one core (less is better)</text>
`

func writeChart(w io.Writer, r *run) {
	longest, rows := 0.0, 0
	for _, group := range chart {
		rows++
		for _, b := range group.bars {
			if m := measured(r.values(b.name, "ns/op")); len(m) > 0 {
				longest = max(longest, m.median())
				rows++
			}
		}
	}
	fmt.Fprintf(w, chartHead, chartWidth, 32+rows*rowHeight+28)
	y := 32
	for _, group := range chart {
		fmt.Fprintf(w, "<text class=\"small\" x=\"8\" y=\"%d\">%s</text>\n", y+18, group.title)
		y += rowHeight
		for _, b := range group.bars {
			if m := measured(r.values(b.name, "ns/op")); len(m) > 0 {
				writeBar(w, y, b, m.median(), longest)
				y += rowHeight
			}
		}
	}
	fmt.Fprintf(w, "<text class=\"small\" x=\"8\" y=\"%d\">%s, %s, %s</text>\n</svg>\n",
		y+20, html.EscapeString(r.setting("cpu")), html.EscapeString(r.setting("go")), html.EscapeString(r.setting("date")))
}

func writeBar(w io.Writer, y int, b bar, ns, longest float64) {
	class := "other"
	if b.ours {
		class = "ours"
	}
	width := max(1, (barRight-barLeft)*ns/longest)
	fmt.Fprintf(w, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", barLeft-8, y+16, html.EscapeString(b.label))
	fmt.Fprintf(w, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", class, barLeft, y+5, width, barHeight)
	fmt.Fprintf(w, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", barLeft+width+6, y+16, nanoseconds(ns))
}
