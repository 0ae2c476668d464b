package cookies

import (
	"encoding/json"
	"slices"
)

// Codec turns values into bytes and back. It must be safe for concurrent use.
//
// Bytes that reach Decode were written by a holder of a key, but perhaps by
// another version of the program: a Codec for a type that changes should carry
// a version, or ignore what it does not know, as JSON does.
type Codec[T any] interface {
	// Append appends the bytes of v to dst and returns the extended slice. It
	// must not keep dst.
	Append(dst []byte, v T) ([]byte, error)

	// Decode returns the value, which may share the memory of src. It must not
	// change src.
	Decode(src []byte) (T, error)
}

// JSON returns the codec that a nil [Config.Codec] is: encoding/json.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

func (jsonCodec[T]) Decode(src []byte) (v T, err error) {
	err = json.Unmarshal(src, &v)
	return v, err
}

// Bytes returns the codec for bytes as they are.
func Bytes() Codec[[]byte] { return bytesCodec{} }

type bytesCodec struct{}

func (bytesCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (bytesCodec) Decode(src []byte) ([]byte, error)           { return slices.Clip(src), nil }

// String returns the codec for a string as it is.
func String() Codec[string] { return stringCodec{} }

type stringCodec struct{}

func (stringCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringCodec) Decode(src []byte) (string, error)           { return string(src), nil }
