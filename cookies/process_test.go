package cookies_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// again runs tests of this package in a process of their own and returns what it
// printed. The arguments that the process gets for itself come after args.
func again(t *testing.T, godebug string, args ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"-test.v", "-test.count=1"}, args...)...)
	if godebug != "" {
		cmd.Env = append(os.Environ(), "GODEBUG="+godebug)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cookies 13: the package works where Go allows approved cryptography alone. The
// tests run again in a process with GODEBUG=fips140=only, all except:
//
//   - TestXAESAccumulated, which gives GCM a nonce from outside;
//   - TestConformance and TestNonces, which are long and show nothing else there.
//
// By hand it is, for any of them:
//
//	GODEBUG=fips140=only go test -run 'TestRoundTrip|TestValues' ./cookies
func TestFIPSOnly(t *testing.T) {
	if fips140.Enforced() {
		// In the second process: the rules are in force.
		block, err := aes.NewCipher(keyA)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cipher.NewGCM(block); err == nil {
			t.Error("GCM with a nonce from outside is allowed")
		}
		return
	}
	out, err := again(t, "fips140=only", "-test.run=^Test|^Example", "-test.skip=^(TestXAESAccumulated|TestConformance|TestNonces|TestRandomFailure)$")
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, ran := range []string{"TestFIPSOnly", "TestRoundTrip", "TestValues", "TestXAESVectors", "TestRotation", "TestHandler"} {
		if !strings.Contains(out, "--- PASS: "+ran+" ") {
			t.Errorf("%s did not run", ran)
		}
	}
}

// noRandomness is the argument with which TestRandomFailure runs itself.
const noRandomness = "without-randomness"

// cookies 38: where the system has no randomness the program ends. There is no
// value with a weaker nonce.
func TestRandomFailure(t *testing.T) {
	if kind, ok := strings.CutPrefix(flag.Arg(0), noRandomness+"="); ok {
		withoutRandomness(t, kind)
		return
	}
	for _, kind := range []string{"e1", "suite", "key"} {
		out, err := again(t, "", "-test.run=^TestRandomFailure$", noRandomness+"="+kind)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Success() {
			t.Errorf("%s: ended with %v", kind, err)
		}
		if !strings.Contains(out, "failed to read random data") || strings.Contains(out, "still here") {
			t.Errorf("%s: printed\n%s", kind, out)
		}
	}
}

func withoutRandomness(t *testing.T, kind string) {
	var suite cookies.Suite
	if kind == "suite" {
		suite = cookies.Suite{Version: "x1", New: func([]byte) (cipher.AEAD, error) { return longNonce{}, nil }}
	}
	c := sealed(t, cookies.Config[string]{Suite: suite})
	rand.Reader = broken{}
	switch kind {
	case "key":
		cookies.GenerateKey()
	default:
		c.Encode("v", "")
	}
	t.Error("still here")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("no entropy") }

// longNonce is an AEAD that gets its nonces from the package.
type longNonce struct{ cipher.AEAD }

func (longNonce) NonceSize() int { return 24 }
func (longNonce) Overhead() int  { return 16 }
func (longNonce) Seal(dst, nonce, plaintext, data []byte) []byte {
	return append(append(dst, plaintext...), make([]byte, 16)...)
}
