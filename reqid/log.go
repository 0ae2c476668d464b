package reqid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// The names under which a [LogHandler] logs by default, and [Attr] the first.
const (
	IDKey       = "request_id"
	ClientIDKey = "client_request_id"
	TraceIDKey  = "trace_id"
	SpanIDKey   = "span_id"
)

// LogConfig configures a [LogHandler]. The keys must differ from each other and
// from those of slog itself: time, level, msg and source. "" is the default,
// the constant of the same name; "-" leaves the attribute out.
type LogConfig struct {
	// Handler writes the records. Required.
	Handler slog.Handler

	// IDKey is the key of the request's ID.
	IDKey string

	// ClientIDKey is the key of the ID that was not trusted, where there is one.
	ClientIDKey string

	// TraceIDKey is the key of the trace's ID, where there is a trace.
	TraceIDKey string

	// SpanIDKey is the key of the caller's span. This service records none, so
	// that is the nearest one that a tracing back end knows.
	SpanIDKey string
}

// LogHandler is a [slog.Handler] that adds the ID of the request being served to
// each record that is logged with its context (InfoContext and the like).
//
// The attributes stand at the root of the record, also when the logger has open
// groups, so that one query finds all records of a request. With open groups the
// attributes inside are rendered for each record, those of With included. A
// record whose context has no ID is passed on as it is, at no cost. The handler
// is as safe for concurrent use as the one it wraps.
type LogHandler struct {
	// keys are those of the four attributes, "" for one that is left out.
	keys [4]string

	// root has the attributes that were added while no group was open, and full
	// everything else too. They are the same until a group is opened.
	root, full slog.Handler

	// open are the groups that full has and root has not, outermost first. A
	// slice that two handlers share is never appended to in place.
	open []group
}

type group struct {
	name  string
	attrs []slog.Attr
}

// NewLogHandler returns a LogHandler, or an error that names every problem in c.
func NewLogHandler(c LogConfig) (*LogHandler, error) {
	var errs []error
	if c.Handler == nil {
		errs = append(errs, errors.New("reqid: Handler: is required (got nil)"))
	}
	h := &LogHandler{root: c.Handler, full: c.Handler}
	taken := []string{slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey}
	for i, k := range []struct{ field, key, byDefault string }{
		{"IDKey", c.IDKey, IDKey},
		{"ClientIDKey", c.ClientIDKey, ClientIDKey},
		{"TraceIDKey", c.TraceIDKey, TraceIDKey},
		{"SpanIDKey", c.SpanIDKey, SpanIDKey},
	} {
		switch k.key {
		case "-":
			continue
		case "":
			k.key = k.byDefault
		}
		if slices.Contains(taken, k.key) {
			errs = append(errs, fmt.Errorf("reqid: %s: is taken (got %q)", k.field, k.key))
		}
		taken = append(taken, k.key)
		h.keys[i] = k.key
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return h, nil
}

// Attr returns the ID in ctx as an attribute with the key [IDKey], for loggers
// without a [LogHandler]. Without an ID it is the zero Attr, which handlers
// ignore.
func Attr(ctx context.Context) slog.Attr {
	if s := stateOf(ctx); s != nil {
		return slog.String(IDKey, s.id)
	}
	return slog.Attr{}
}

// Enabled implements [slog.Handler]: it asks the wrapped handler.
func (h *LogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.full.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *LogHandler) Handle(ctx context.Context, record slog.Record) error {
	s := stateOf(ctx)
	if s == nil {
		return h.full.Handle(ctx, record)
	}
	if len(h.open) == 0 {
		record = record.Clone()
		h.addTo(&record, s)
		return h.full.Handle(ctx, record)
	}
	// An attribute of a record goes into the innermost group that its handler
	// has open. So the record for root has the groups spelled out.
	out := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	h.addTo(&out, s)
	out.AddAttrs(h.spellOut(record))
	return h.root.Handle(ctx, out)
}

func (h *LogHandler) addTo(record *slog.Record, s *state) {
	values := [4]string{s.id, s.client}
	if s.trace != nil {
		values[2], values[3] = s.trace.TraceID, s.trace.SpanID
	}
	var attrs [4]slog.Attr
	n := 0
	for i, key := range h.keys {
		if key != "" && values[i] != "" {
			attrs[n] = slog.String(key, values[i])
			n++
		}
	}
	record.AddAttrs(attrs[:n]...)
}

// spellOut returns the outermost open group as one attribute, with the other
// groups and the attributes of the record inside. slog.Handlers leave out a
// group without attributes in this form as in the other.
func (h *LogHandler) spellOut(record slog.Record) slog.Attr {
	last := len(h.open) - 1
	attrs := make([]slog.Attr, 0, len(h.open[last].attrs)+record.NumAttrs())
	attrs = append(attrs, h.open[last].attrs...)
	record.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	for i := last; ; i-- {
		g := slog.Attr{Key: h.open[i].name, Value: slog.GroupValue(attrs...)}
		if i == 0 {
			return g
		}
		attrs = append(slices.Clip(h.open[i-1].attrs), g)
	}
}

// WithAttrs implements [slog.Handler].
func (h *LogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	derived := *h
	last := len(h.open) - 1
	if last < 0 {
		derived.root = h.root.WithAttrs(attrs)
		derived.full = derived.root
		return &derived
	}
	derived.open = slices.Clone(h.open)
	g := &derived.open[last]
	g.attrs = append(slices.Clip(g.attrs), attrs...)
	derived.full = h.full.WithAttrs(attrs) // which owns attrs from here on
	return &derived
}

// WithGroup implements [slog.Handler].
func (h *LogHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	derived := *h
	derived.open = append(slices.Clip(h.open), group{name: name})
	derived.full = h.full.WithGroup(name)
	return &derived
}
