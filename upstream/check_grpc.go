package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// The health checking protocol of gRPC (grpc.health.v1) is one unary call. Its
// messages have one field each, so they are read and written here by hand:
//
//	message HealthCheckRequest  { string service = 1; }
//	message HealthCheckResponse { ServingStatus status = 1; }

const (
	grpcHealthPath = "/grpc.health.v1.Health/Check"
	grpcPrefix     = 5 // one byte for compression, four for the length
	grpcServing    = 1
	maxGRPCService = 16000
	maxGRPCAnswer  = 1 << 10
)

var errGRPCMessage = errors.New("invalid grpc.health.v1 message")

// grpcHealthRequest returns the request message with its prefix.
func grpcHealthRequest(service string) []byte {
	msg := make([]byte, grpcPrefix, grpcPrefix+len(service)+4)
	if service != "" {
		msg = append(msg, 1<<3|2) // field 1, length-delimited
		msg = binary.AppendUvarint(msg, uint64(len(service)))
		msg = append(msg, service...)
	}
	binary.BigEndian.PutUint32(msg[1:], uint32(len(msg)-grpcPrefix))
	return msg
}

// grpcHealthStatus returns the status in a response message with its prefix.
// Fields that it does not know are passed over.
func grpcHealthStatus(b []byte) (uint64, error) {
	if len(b) < grpcPrefix || b[0] != 0 || int64(binary.BigEndian.Uint32(b[1:])) != int64(len(b)-grpcPrefix) {
		return 0, errGRPCMessage // compressed, too, which was not offered
	}
	b = b[grpcPrefix:]
	var status uint64
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return 0, errGRPCMessage
		}
		b = b[n:]
		skip := 0
		switch tag & 7 {
		case 0: // varint
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errGRPCMessage
			}
			if tag>>3 == 1 {
				status = v
			}
			skip = n
		case 1: // 64 bits
			skip = 8
		case 2: // length-delimited
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return 0, errGRPCMessage
			}
			skip = n + int(size)
		case 5: // 32 bits
			skip = 4
		default:
			return 0, errGRPCMessage
		}
		if skip > len(b) {
			return 0, errGRPCMessage
		}
		b = b[skip:]
	}
	return status, nil
}

func (c *checker) askGRPC(ctx context.Context, p *Peer) error {
	msg := grpcHealthRequest(c.c.check.Service)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, grpcHealthPath, bytes.NewReader(msg))
	if err != nil {
		return err
	}
	c.prepare(req)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := c.c.probe(ctx, p, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxGRPCAnswer))
	if err != nil {
		return err
	}
	return judgeGRPC(res, body)
}

// judgeGRPC tells whether a response whose body has been read says SERVING.
func judgeGRPC(res *http.Response, body []byte) error {
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/grpc") {
		return fmt.Errorf("content type %q", ct)
	}
	// In the header of a response that has nothing else.
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status")
	}
	if status != "0" {
		return fmt.Errorf("grpc-status %q", status)
	}
	serving, err := grpcHealthStatus(body)
	if err != nil {
		return err
	}
	if serving != grpcServing {
		return fmt.Errorf("serving status %d", serving)
	}
	return nil
}
