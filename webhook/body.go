package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"example.com/plainware/internal/problem"
)

// firstRead is how much room a body gets before any of it has arrived: a
// Content-Length is only a promise.
const firstRead = 16 << 10

// readBody reads the body of r, up to most bytes and one more.
func readBody(r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, ErrTooLarge
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	room := int64(512)
	if r.ContentLength >= 0 {
		room = min(r.ContentLength, firstRead)
	}
	b := make([]byte, 0, room+1) // one more, to see the end without growing
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):min(int64(cap(b)), most+1)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > most:
			return nil, ErrTooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, readError(err)
		}
	}
}

// readError keeps the status of an error that has one, such as that of a
// middleware outside which limits time.
func readError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if _, ok := errors.AsType[problem.Error](err); ok {
		return fmt.Errorf("webhook: the body cannot be read: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrBody, err)
}

// restore gives r a body that was read.
func restore(r *http.Request, b []byte) { new(record).give(r, b) }

func (rec *record) restore(r *http.Request) { rec.give(r, rec.Body) }

func (rec *record) give(r *http.Request, b []byte) {
	r.ContentLength, r.TransferEncoding = int64(len(b)), nil
	if len(b) == 0 {
		r.Body = http.NoBody
		r.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
		return
	}
	rec.reader.Reset(b)
	r.Body = &rec.reader
	r.GetBody = func() (io.ReadCloser, error) { return &body{*bytes.NewReader(b)}, nil }
}

type body struct{ bytes.Reader }

func (*body) Close() error { return nil }
