package targets

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// WriteTable writes rows as aligned columns. A time is followed by how far the
// median of its rounds lies above the minimum, and a rate by how far it lies
// below the maximum: the larger, the busier the machine was.
func WriteTable(w io.Writer, rows []Row) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "package\tmeasure\tunit\tours\tpeer\ttheirs\tratio\ttarget\tok")
	for _, r := range rows {
		ours, peer, theirs, ratio, target := number(r.Ours), "-", "-", "-", "-"
		if r.Peer == "" && r.Unit == "ns/op" {
			ours = timing(r.Ours, r.OursMedian)
		}
		if r.Peer != "" {
			ours = timing(r.Ours, r.OursMedian)
			peer, theirs = r.Peer, timing(r.Theirs, r.PeerMedian)
			ratio = ratioText(r.Ratio)
		}
		verdict := "-"
		if r.Judged {
			target = "<= " + number(r.Target)
			if r.Least {
				target = ">= " + number(r.Target)
			}
			verdict = map[bool]string{true: "ok", false: "SHORT"}[r.OK]
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Package, r.Measure, r.Unit, ours, peer, theirs, ratio, target, verdict)
	}
	return tw.Flush()
}

// WriteJSON writes rows as one JSON array.
func WriteJSON(w io.Writer, rows []Row) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if rows == nil {
		rows = []Row{}
	}
	return enc.Encode(rows)
}

// timing is the best of the rounds and the median, relative to it.
func timing(best, median float64) string {
	if best == 0 {
		return "0"
	}
	digits := 0
	switch {
	case best < 1:
		digits = 3
	case best < 100:
		digits = 1
	}
	return fmt.Sprintf("%.*f (%+.0f%%)", digits, best, 100*(median/best-1))
}

// ratioText keeps two significant digits of a small ratio, so that 0.0029 is
// not shown as 0.00.
func ratioText(ratio float64) string {
	if ratio < 0.1 {
		return strconv.FormatFloat(ratio, 'g', 2, 64)
	}
	return strconv.FormatFloat(ratio, 'f', 2, 64)
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
