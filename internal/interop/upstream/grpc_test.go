package upstream_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/upstream"
)

// service is grpc-go's interop service, which tells when the context of a call
// has ended and how much time the call was given.
type service struct {
	testgrpc.TestServiceServer
	ended chan error
}

func (s service) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); md.Get("wait") == nil {
		return s.TestServiceServer.FullDuplexCall(stream)
	}
	if d, ok := stream.Context().Deadline(); ok {
		if err := stream.SetHeader(metadata.Pairs("left", time.Until(d).String())); err != nil {
			return err
		}
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	s.ended <- stream.Context().Err()
	return stream.Context().Err()
}

// startGRPC starts grpc-go's server, and a Proxy in front of it.
func startGRPC(t *testing.T, secure bool, opts ...grpc.ServerOption) (*grpc.ClientConn, service) {
	t.Helper()
	// The certificate of the back end is that of the edge in front of it.
	lender := serve(t, nil, true)
	cfg, scheme := upstream.Config{}, "grpc://"
	if secure {
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&lender.certs[0])))
		cfg.TLS, scheme = &tls.Config{RootCAs: lender.roots}, "grpcs://"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	svc := service{interop.NewTestServer(), make(chan error, 10)}
	s := grpc.NewServer(opts...)
	testgrpc.RegisterTestServiceServer(s, svc)
	go s.Serve(l)
	t.Cleanup(s.Stop)

	front := serve(t, newProxy(t, newPool(t, cfg, scheme+l.Addr().String())), secure)
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{RootCAs: front.roots})
	}
	cc, err := grpc.NewClient(front.addr, grpc.WithTransportCredentials(creds),
		grpc.WithStreamInterceptor(endBeforeClose))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc, svc
}

// endBeforeClose lets a stream's cancellation take effect before it is half
// closed. cancel_after_begin does both at once, and grpc-go ends the stream from
// a goroutine of its own: on a busy machine the server, also without a proxy,
// can answer what it was told is complete.
func endBeforeClose(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ended := make(chan struct{})
	s, err := streamer(ctx, desc, cc, method, append(opts, grpc.OnFinish(func(error) { close(ended) }))...)
	if err != nil {
		return nil, err
	}
	return endingStream{s, ctx, ended}, nil
}

type endingStream struct {
	grpc.ClientStream
	ctx   context.Context
	ended <-chan struct{}
}

func (s endingStream) CloseSend() error {
	if s.ctx.Err() != nil {
		<-s.ended
	}
	return s.ClientStream.CloseSend()
}

func eachGRPC(t *testing.T, f func(*testing.T, *grpc.ClientConn, service)) {
	for _, name := range []string{"h2c", "TLS"} {
		t.Run(name, func(t *testing.T) {
			cc, svc := startGRPC(t, name == "TLS")
			f(t, cc, svc)
		})
	}
}

// The interop tests of the gRPC project, by its own client and server, pass
// through the Proxy. One that fails ends the process.
func TestGRPCInterop(t *testing.T) {
	eachGRPC(t, func(t *testing.T, cc *grpc.ClientConn, _ service) {
		ctx := t.Context()
		tc := testgrpc.NewTestServiceClient(cc)
		for name, f := range map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
			"empty_unary": interop.DoEmptyUnaryCall, "large_unary": interop.DoLargeUnaryCall,
			"client_streaming": interop.DoClientStreaming, "server_streaming": interop.DoServerStreaming,
			"ping_pong": interop.DoPingPong, "empty_stream": interop.DoEmptyStream,
			"timeout_on_sleeping_server": interop.DoTimeoutOnSleepingServer,
			"cancel_after_begin":         interop.DoCancelAfterBegin, "cancel_after_first_response": interop.DoCancelAfterFirstResponse,
			"custom_metadata":         interop.DoCustomMetadata,
			"status_code_and_message": interop.DoStatusCodeAndMessage, "special_status_message": interop.DoSpecialStatusMessage,
		} {
			t.Run(name, func(*testing.T) { f(ctx, tc) })
		}
		t.Run("unimplemented_service", func(*testing.T) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
		})
		t.Run("unimplemented_method", func(*testing.T) { interop.DoUnimplementedMethod(ctx, cc) })
	})
}

// A client that cancels, or whose deadline passes, ends the call at the server,
// which knows the deadline.
func TestGRPCEnds(t *testing.T) {
	eachGRPC(t, func(t *testing.T, cc *grpc.ClientConn, svc service) {
		tc := testgrpc.NewTestServiceClient(cc)
		begin := func(ctx context.Context) (testgrpc.TestService_FullDuplexCallClient, metadata.MD, error) {
			stream, err := tc.FullDuplexCall(ctx)
			if err != nil {
				return nil, nil, err
			}
			h, err := stream.Header()
			if h == nil && err == nil { // it has ended without, and Recv knows why
				_, err = stream.Recv()
			}
			return stream, h, err
		}
		for _, how := range []string{"cancel", "deadline"} {
			ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "wait", "1"))
			limit, longest := time.Hour, time.Hour
			if how == "deadline" {
				limit, longest = 300*time.Millisecond, 20*time.Second
			}
			ctx, stop := context.WithTimeout(ctx, limit)
			stream, h, err := begin(ctx)
			for status.Code(err) == codes.DeadlineExceeded && limit < longest {
				// The machine is too busy to begin the call in that time. If the
				// server has seen it, it tells of its end.
				limit *= 2
				stop()
				ctx, stop = context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "wait", "1"), limit)
				stream, h, err = begin(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			if left, err := time.ParseDuration(append(h.Get("left"), "none")[0]); err != nil || left <= 0 || left > limit {
				t.Errorf("%s: the server has %v of %v left, %v", how, left, limit, err)
			}
			want := codes.DeadlineExceeded
			if how == "cancel" {
				cancel()
				want = codes.Canceled
			}
			if _, err := stream.Recv(); status.Code(err) != want {
				t.Errorf("%s: got %v", how, err)
			}
			select {
			case <-svc.ended:
			case <-time.After(5 * time.Second):
				t.Errorf("%s: the call goes on at the server", how)
			}
			stop()
			cancel()
		}
	})
}

// What the Proxy itself has to say reaches a gRPC client as a status.
func TestGRPCErrors(t *testing.T) {
	front := edge(t, "grpc://"+prog.Addr(t)) // nobody is there
	cc, err := grpc.NewClient(front.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = testgrpc.NewTestServiceClient(cc).EmptyCall(t.Context(), &testgrpc.Empty{})
	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() == "" {
		t.Errorf("got %v", err)
	}
}
