package xchacha_test

import (
	"fmt"
	"log"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/xchacha"
)

func ExampleSuite() {
	theme, err := cookies.NewSealed(cookies.Config[string]{
		Name:  "theme",
		Keys:  [][]byte{cookies.GenerateKey()},
		Suite: xchacha.Suite(),
	})
	if err != nil {
		log.Fatal(err)
	}
	text, err := theme.Encode("dark", "")
	if err != nil {
		log.Fatal(err)
	}
	v, _, err := theme.Decode(text, "")
	fmt.Println(text[:3], v, err)
	// Output: e2. dark <nil>
}
