package cli

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expositionType is the content type of Prometheus's text format, which is
// specified at https://prometheus.io/docs/instrumenting/exposition_formats/.
// It is written here because the client library would take the program beyond
// the size it may have.
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// exposition is a page of metrics in the making.
type exposition struct{ bytes.Buffer }

// series are the values of one metric by their labels, written by labels.
type series map[string]float64

// labels writes names and values, by turns, as they stand behind a metric's
// name.
func labels(pairs ...string) string {
	var parts []string
	for i := 0; i < len(pairs); i += 2 {
		parts = append(parts, pairs[i]+`="`+labelEscapes.Replace(pairs[i+1])+`"`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (x *exposition) head(name, kind, help string) {
	fmt.Fprintf(x, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// metric writes a counter or a gauge with all its series, in a fixed order.
func (x *exposition) metric(name, kind, help string, values series) {
	x.head(name, kind, help)
	for _, l := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(x, "%s%s %s\n", name, l, number(values[l]))
	}
}

// histogram counts durations by how long they were.
type histogram struct {
	counts [len(buckets)]int64 // up to each bound
	total  int64
	sum    time.Duration
}

// buckets are the upper bounds of histograms, in seconds.
var buckets = [...]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

func (h *histogram) observe(d time.Duration) {
	h.total++
	h.sum += d
	for i, bound := range buckets {
		if d.Seconds() <= bound {
			h.counts[i]++
		}
	}
}

// histogram writes the series of one metric, by the value of its one label.
func (x *exposition) histogram(name, help, label string, values map[string]*histogram) {
	x.head(name, "histogram", help)
	for _, v := range slices.Sorted(maps.Keys(values)) {
		h := values[v]
		for i, bound := range buckets {
			fmt.Fprintf(x, "%s_bucket%s %d\n", name, labels(label, v, "le", number(bound)), h.counts[i])
		}
		fmt.Fprintf(x, "%s_bucket%s %d\n", name, labels(label, v, "le", "+Inf"), h.total)
		fmt.Fprintf(x, "%s_sum%s %s\n", name, labels(label, v), number(h.sum.Seconds()))
		fmt.Fprintf(x, "%s_count%s %d\n", name, labels(label, v), h.total)
	}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
