package upstream_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A kind is one of the four kinds of gRPC calls, made and checked in full. It
// returns the metadata that came before and after the messages.
type kind func(ctx context.Context, c testgrpc.TestServiceClient) (header, trailer metadata.MD, err error)

const kindMessages = 3

var kinds = map[string]kind{
	"unary": func(ctx context.Context, c testgrpc.TestServiceClient) (header, trailer metadata.MD, err error) {
		res, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 70_000, Payload: payload(30_000)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err == nil {
			err = wantSize(res.GetPayload(), 70_000)
		}
		return header, trailer, err
	},
	"client stream": func(ctx context.Context, c testgrpc.TestServiceClient) (header, trailer metadata.MD, err error) {
		stream, err := c.StreamingInputCall(ctx)
		if err != nil {
			return nil, nil, err
		}
		for range kindMessages {
			if err := stream.Send(&testgrpc.StreamingInputCallRequest{Payload: payload(30_000)}); err != nil {
				break // CloseAndRecv knows why
			}
		}
		res, err := stream.CloseAndRecv()
		if err == nil && res.AggregatedPayloadSize != kindMessages*30_000 {
			err = fmt.Errorf("the server got %d bytes", res.AggregatedPayloadSize)
		}
		header, _ = stream.Header()
		return header, stream.Trailer(), err
	},
	"server stream": func(ctx context.Context, c testgrpc.TestServiceClient) (header, trailer metadata.MD, err error) {
		req := &testgrpc.StreamingOutputCallRequest{}
		for i := range kindMessages {
			req.ResponseParameters = append(req.ResponseParameters, &testgrpc.ResponseParameters{Size: int32(1 + 30_000*i), IntervalUs: 1000})
		}
		stream, err := c.StreamingOutputCall(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		for i := 0; ; i++ {
			res, err := stream.Recv()
			switch {
			case err == nil:
				err = wantSize(res.GetPayload(), 1+30_000*i)
			case err == io.EOF && i == kindMessages:
				err = nil
			}
			if err != nil || i == kindMessages {
				header, _ = stream.Header()
				return header, stream.Trailer(), err
			}
		}
	},
	"bidirectional": func(ctx context.Context, c testgrpc.TestServiceClient) (header, trailer metadata.MD, err error) {
		stream, err := c.FullDuplexCall(ctx)
		if err != nil {
			return nil, nil, err
		}
		for i := 0; err == nil && i < kindMessages; i++ { // each waits for the one before
			err = stream.Send(&testgrpc.StreamingOutputCallRequest{
				ResponseParameters: []*testgrpc.ResponseParameters{{Size: int32(30_000 * i)}}, Payload: payload(100),
			})
			if err != nil && err != io.EOF {
				break
			}
			var res *testgrpc.StreamingOutputCallResponse
			if res, err = stream.Recv(); err == nil {
				err = wantSize(res.GetPayload(), 30_000*i)
			}
		}
		if err == nil {
			stream.CloseSend()
			if _, err = stream.Recv(); err == io.EOF {
				err = nil
			} else if err == nil {
				err = fmt.Errorf("a message too many")
			}
		}
		header, _ = stream.Header()
		return header, stream.Trailer(), err
	},
}

func payload(n int) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, n)} }

func wantSize(p *testgrpc.Payload, n int) error {
	if got := len(p.GetBody()); got != n {
		return fmt.Errorf("a message of %d bytes, want %d", got, n)
	}
	return nil
}

// manners is how a server treats any call by the metadata of its request, before
// the call itself: "echo" comes back in header and trailer, "fail" fails it
// after that, and "hold" holds it until its context has ended.
type manners struct {
	held *sync.Map // holds, by the value of "hold"
}

// hold is what the server says of one call that is held. One whose client has given
// up may still come there, and must not be taken for the next.
type hold struct {
	began chan time.Duration // time left to it; 0 is no limit
	ended chan error
}

func (m manners) hold(id string) hold {
	h := hold{make(chan time.Duration, 1), make(chan error, 1)}
	m.held.Store(id, h)
	return h
}

// errRefused is not one that anything between could come up with.
var errRefused = status.Error(codes.FailedPrecondition, "not now: 100 % ñ")

func (m manners) treat(ctx context.Context, setHeader, setTrailer func(metadata.MD) error) error {
	in, _ := metadata.FromIncomingContext(ctx)
	back := metadata.MD{}
	for _, name := range []string{"echo", "echo-bin"} {
		back.Set(name, in.Get(name)...)
	}
	if err := setHeader(back); err != nil {
		return err
	}
	if err := setTrailer(back); err != nil {
		return err
	}
	switch {
	case in.Get("fail") != nil:
		return errRefused
	case in.Get("hold") != nil:
		var left time.Duration
		if d, ok := ctx.Deadline(); ok {
			left = time.Until(d)
		}
		held, _ := m.held.Load(in.Get("hold")[0])
		h := held.(hold)
		h.began <- left
		<-ctx.Done()
		h.ended <- ctx.Err()
		return ctx.Err()
	}
	return nil
}

func (m manners) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			err := m.treat(ctx,
				func(md metadata.MD) error { return grpc.SetHeader(ctx, md) },
				func(md metadata.MD) error { return grpc.SetTrailer(ctx, md) })
			if err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			err := m.treat(s.Context(), s.SetHeader, func(md metadata.MD) error { s.SetTrailer(md); return nil })
			if err != nil {
				return err
			}
			return next(srv, s)
		}),
	}
}

// eachKind makes calls of each kind to grpc-go's server, with TLS on both sides
// of the Proxy and without.
func eachKind(t *testing.T, f func(t *testing.T, call func(context.Context) (header, trailer metadata.MD, err error), m manners)) {
	for _, name := range []string{"h2c", "TLS"} {
		t.Run(name, func(t *testing.T) {
			m := manners{new(sync.Map)}
			cc, _ := startGRPC(t, name == "TLS", m.options()...)
			client := testgrpc.NewTestServiceClient(cc)
			for name, k := range kinds {
				t.Run(name, func(t *testing.T) {
					f(t, func(ctx context.Context) (metadata.MD, metadata.MD, error) { return k(ctx, client) }, m)
				})
			}
		})
	}
}

// Metadata passes in both directions, before the messages and after them,
// several values of a name and binary ones included, whether a call succeeds or
// fails; and so does the status with its message.
func TestGRPCMetadata(t *testing.T) {
	values, binary := []string{"one", "two, and a half"}, []string{"\x00\x01\xfe\xff", ""}
	eachKind(t, func(t *testing.T, call func(context.Context) (header, trailer metadata.MD, err error), _ manners) {
		out := metadata.MD{"echo": values, "echo-bin": binary}
		for _, fails := range []bool{false, true} {
			ctx, stop := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), out.Copy()), 20*time.Second)
			defer stop()
			if fails {
				ctx = metadata.AppendToOutgoingContext(ctx, "fail", "1")
			}
			header, trailer, err := call(ctx)
			if !fails && err != nil || fails && status.Convert(err).String() != status.Convert(errRefused).String() {
				t.Errorf("fails %v: %v", fails, err)
			}
			if fails {
				// There is no message, so all of it may be in one field block,
				// which is the trailer then.
				header = metadata.Join(header, trailer)
			}
			for where, md := range map[string]metadata.MD{"header": header, "trailer": trailer} {
				if got := md.Get("echo"); len(got) < 2 || !slices.Equal(got[:2], values) {
					t.Errorf("fails %v: %s has %q, want %q", fails, where, got, values)
				}
				if got := md.Get("echo-bin"); len(got) < 2 || !slices.Equal(got[:2], binary) {
					t.Errorf("fails %v: %s has %q, want %q", fails, where, got, binary)
				}
			}
		}
	})
}

// A call that its client cancels, or whose deadline passes, ends at both ends,
// and the server knows the deadline.
func TestGRPCEndsEarly(t *testing.T) {
	eachKind(t, func(t *testing.T, call func(context.Context) (header, trailer metadata.MD, err error), m manners) {
		for _, want := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
			limit, longest, patience := time.Hour, time.Hour, 5*time.Second
			if want == codes.DeadlineExceeded {
				limit, longest, patience = 500*time.Millisecond, 20*time.Second, time.Minute
			}
			var cancel, stop context.CancelFunc
			result := make(chan error, 1)
			var held hold
			for begun := false; !begun; {
				id := fmt.Sprint(t.Name(), want, limit)
				held = m.hold(id)
				var ctx context.Context
				ctx, cancel = context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "hold", id))
				ctx, stop = context.WithTimeout(ctx, limit)
				go func() {
					_, _, err := call(ctx)
					result <- err
				}()
				select {
				case left := <-held.began:
					if left == 0 || left > limit { // less than 0 has passed already
						t.Errorf("%v: the server has %v of %v left", want, left, limit)
					}
					begun = true
				case err := <-result:
					stop()
					cancel()
					if status.Code(err) != want || limit >= longest {
						t.Fatalf("%v: the call does not come to the server: %v", want, err)
					}
					limit *= 2 // the machine is too busy to get there in that time
				case <-time.After(patience):
					t.Fatalf("%v: the call does not come to the server", want)
				}
			}
			if want == codes.Canceled {
				cancel()
			}
			for what, ended := range map[string]chan error{"client": result, "server": held.ended} {
				select {
				case err := <-ended:
					if got := status.Code(err); what == "client" && got != want {
						t.Errorf("%v: the client has %v", want, err)
					}
				case <-time.After(5 * time.Second):
					t.Errorf("%v: the call goes on at the %s", want, what)
				}
			}
			stop()
			cancel()
		}
	})
}
