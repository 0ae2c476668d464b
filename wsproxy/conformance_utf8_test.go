package wsproxy_test

import "fmt"

// utf8Cases are 6: text is UTF-8, whatever its fragments. The proxy looks at no
// payload; that what the back end finds wrong becomes the client's Close is
// what these show.
func utf8Cases() []conformanceCase {
	const (
		kosme    = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5" // κόσμε
		greeting = "Hello-µ@ßöäüàá-UTF-8!!"
		broken   = kosme + "\xed\xa0\x80" + "edited" // a surrogate
	)
	all := []conformanceCase{
		{number: "6.1.1", send: []frame{text("")}, want: []frame{text("")}},
		{number: "6.1.2", send: []frame{begin(""), middle(""), last("")}, want: []frame{text("")}},
		{number: "6.1.3", send: []frame{begin(""), middle("middle frame payload"), last("")}, want: []frame{text("middle frame payload")}},
		{number: "6.2.1", send: []frame{text(greeting)}, want: []frame{text(greeting)}},
		{number: "6.2.2", send: []frame{begin(greeting[:12]), last(greeting[12:])}, want: []frame{text(greeting)}},
		{number: "6.2.3", send: octets(greeting), want: []frame{text(greeting)}},
		{number: "6.2.4", send: octets(kosme), want: []frame{text(kosme)}},
		{number: "6.3.1", send: []frame{text(broken)}, code: 1007},
		{number: "6.3.2", send: octets(broken), code: 1007},
		// Fail-fast: nothing that could follow makes it right.
		{number: "6.4.1", send: []frame{begin(kosme), middle("\xf4\x90\x80\x80"), last("edited")}, code: 1007},
		{number: "6.4.2", send: []frame{begin(kosme + "\xf4"), middle("\x90"), last("\x80\x80edited")}, code: 1007},
		{number: "6.4.3", send: []frame{text(kosme + "\xf4\x90\x80\x80edited")}, code: 1007, chop: 24},
		{number: "6.4.4", send: []frame{text(kosme + "\xf4\x90\x80\x80edited")}, code: 1007, chop: 1},
	}
	// The series 6.5 to 6.23, each text with whether it is valid.
	for series, texts := range [][]struct {
		text  string
		valid bool
	}{
		5:  {{"Hello-\xc2\xb5@\xc3\x9f", true}, {"\xf0\x9f\x98\x80", true}, {kosme, true}},
		6:  prefixes(kosme, map[int]bool{0: true, 2: true, 5: true, 7: true, 9: true, 11: true}),
		7:  {{"\x00", true}, {"\xc2\x80", true}, {"\xe0\xa0\x80", true}, {"\xf0\x90\x80\x80", true}},
		8:  {{"\xf8\x88\x80\x80\x80", false}, {"\xfc\x84\x80\x80\x80\x80", false}},
		9:  {{"\x7f", true}, {"\xdf\xbf", true}, {"\xef\xbf\xbf", true}, {"\xf4\x8f\xbf\xbf", true}},
		10: {{"\xf7\xbf\xbf\xbf", false}, {"\xfb\xbf\xbf\xbf\xbf", false}, {"\xfd\xbf\xbf\xbf\xbf\xbf", false}},
		11: {{"\xed\x9f\xbf", true}, {"\xee\x80\x80", true}, {"\xef\xbf\xbd", true}, {"\xf4\x8f\xbf\xbf", true}, {"\xf4\x90\x80\x80", false}},
		12: {{"\x80", false}, {"\xbf", false}, {"\x80\xbf", false}, {"\x80\xbf\x80", false}, {"\x80\xbf\x80\xbf", false},
			{"\x80\xbf\x80\xbf\x80", false}, {"\x80\xbf\x80\xbf\x80\xbf", false}, {"\x80\x81\x82\xbd\xbe\xbf", false}},
		13: {{"\xc0 \xc1 \xdf ", false}, {"\xe0 \xe8 \xef ", false}, {"\xf0 \xf3 \xf7 ", false}, {"\xf8 \xfb ", false}, {"\xfc \xfd ", false}},
		14: {{"\xc0", false}, {"\xe0\x80", false}, {"\xf0\x80\x80", false}, {"\xf8\x80\x80\x80", false}, {"\xfc\x80\x80\x80\x80", false},
			{"\xdf", false}, {"\xef\xbf", false}, {"\xf7\xbf\xbf", false}, {"\xfb\xbf\xbf\xbf", false}, {"\xfd\xbf\xbf\xbf\xbf", false}},
		15: {{"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf", false}},
		16: {{"\xfe", false}, {"\xff", false}, {"\xfe\xfe\xff\xff", false}},
		17: {{"\xc0\xaf", false}, {"\xe0\x80\xaf", false}, {"\xf0\x80\x80\xaf", false}, {"\xf8\x80\x80\x80\xaf", false}, {"\xfc\x80\x80\x80\x80\xaf", false}},
		18: {{"\xc1\xbf", false}, {"\xe0\x9f\xbf", false}, {"\xf0\x8f\xbf\xbf", false}, {"\xf8\x87\xbf\xbf\xbf", false}, {"\xfc\x83\xbf\xbf\xbf\xbf", false}},
		19: {{"\xc0\x80", false}, {"\xe0\x80\x80", false}, {"\xf0\x80\x80\x80", false}, {"\xf8\x80\x80\x80\x80", false}, {"\xfc\x80\x80\x80\x80\x80", false}},
		20: {{"\xed\xa0\x80", false}, {"\xed\xad\xbf", false}, {"\xed\xae\x80", false}, {"\xed\xaf\xbf", false}, {"\xed\xb0\x80", false}, {"\xed\xbe\x80", false}, {"\xed\xbf\xbf", false}},
		21: {{"\xed\xa0\x80\xed\xb0\x80", false}, {"\xed\xa0\x80\xed\xbf\xbf", false}, {"\xed\xad\xbf\xed\xb0\x80", false}, {"\xed\xaf\xbf\xed\xbf\xbf", false}},
		22: {{"\xef\xbf\xbe", true}, {"\xef\xbf\xbf", true}, {"\xf0\x9f\xbf\xbe", true}, {"\xf0\x9f\xbf\xbf", true}, {"\xf0\xaf\xbf\xbe", true}, {"\xf4\x8f\xbf\xbe", true}, {"\xf4\x8f\xbf\xbf", true}},
		23: {{"\xef\xbf\xb9", true}, {"\xef\xbf\xba", true}, {"\xef\xbf\xbb", true}, {"\xef\xbf\xbc", true}, {"\xef\xbf\xbd", true}},
	} {
		for i, x := range texts {
			c := conformanceCase{number: fmt.Sprintf("6.%d.%d", series, i+1), send: []frame{text(x.text)}}
			if x.valid {
				c.want = []frame{text(x.text)}
			} else {
				c.code = 1007
			}
			all = append(all, c)
		}
	}
	return all
}

// octets is s in fragments of one octet.
func octets(s string) []frame {
	var all []frame
	for i := range len(s) {
		all = append(all, middle(s[i:i+1]))
	}
	all[0].op, all[len(all)-1].fin = opText, true
	return all
}

// prefixes are those of s, valid at the lengths given.
func prefixes(s string, valid map[int]bool) (all []struct {
	text  string
	valid bool
}) {
	for n := range len(s) + 1 {
		all = append(all, struct {
			text  string
			valid bool
		}{s[:n], valid[n]})
	}
	return all
}
