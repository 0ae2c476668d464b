package redisstore_test

import (
	"context"
	"fmt"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

func ExampleNew() {
	// With go-redis, where rdb is a *redis.Client, the function is
	//
	//	func(ctx context.Context, args ...any) (any, error) { return rdb.Do(ctx, args...).Result() }
	//
	// Here a stand-in answers.
	client := &server{}

	ctx := context.Background()
	s, err := redisstore.New(ctx, redisstore.Config{Do: client.do})
	if err != nil {
		fmt.Println(err)
		return
	}

	// Ten requests at once, and then one every 100 ms.
	for i := range 11 {
		r, err := s.Advance(ctx, store.Op{
			Space: "login", Key: "192.0.2.1", Clock: true,
			Ceil: int64(time.Second), Step: int64(100 * time.Millisecond), Min: 1, Max: 1,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		if r.Granted == 0 {
			fmt.Println("refused after", i)
		}
	}
	// Output: refused after 10
}

func ExampleKeys() {
	// rueidis and valkey-go are told which arguments are keys:
	//
	//	i, j := redisstore.Keys(args)
	//	c.B().Arbitrary(s[:i]...).Keys(s[i:j]...).Args(s[j:]...).Build()
	for _, args := range [][]any{
		{"MGET", "plainware:v:session"},
		{"EVALSHA", "0123456789abcdef0123456789abcdef01234567", "1", "plainware:r:{user}login", "…"},
		{"INFO"},
	} {
		i, j := redisstore.Keys(args)
		fmt.Println(args[0], args[i:j])
	}
	// Output:
	// MGET [plainware:v:session]
	// EVALSHA [plainware:r:{user}login]
	// INFO []
}
