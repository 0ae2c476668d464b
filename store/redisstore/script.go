package redisstore

import (
	"crypto/fips140"
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
)

// script is a Lua script, known to the server by its hash.
type script struct {
	source, sha any // strings, boxed once
}

func newScript(source string) *script {
	var sum [sha1.Size]byte
	// The hash is a name here, which a server chose that knows no other.
	fips140.WithoutEnforcement(func() { sum = sha1.Sum([]byte(source)) })
	return &script{source: source, sha: hex.EncodeToString(sum[:])}
}

// args returns the beginning of the command that runs the script, with room for
// the keys and for n further arguments.
func (sc *script) args(keys, n int) []any {
	args := make([]any, 3, 3+keys+n)
	args[0], args[1], args[2] = "EVALSHA", sc.sha, "1"
	if keys != 1 {
		args[2] = strconv.Itoa(keys)
	}
	return args
}

// full returns the same command with the script itself in it. It is a copy,
// since the client may still have a hand on the other.
func (sc *script) full(args []any) []any {
	args = slices.Clone(args)
	args[0], args[1] = "EVAL", sc.source
	return args
}

// The first line of each script is its name, for those who look at a server's
// slow log.
var (
	advance = newScript(`-- plainware advance
-- KEYS: registers. ARGV: for each of them seven doubles: floor, ceiling, what
-- proves a wrong clock, step, least and most steps, and the time to live in
-- ms, which is -1 for a clock register. One more argument: all or none.
--
-- A double holds 53 bits and the nanoseconds since 1970 need 61, so the value of
-- a clock register is handled as its distance from now, and seconds and
-- nanoseconds are put together as text only. All that stays is below 2^53 and
-- exact; the quotient of two integers below 2^53 never rounds up to the next.
local t = redis.call('TIME')
local sec, ns = tonumber(t[1]), tonumber(t[2]) * 1000
local apply, out = true, {sec, ns, 1}

-- All or none takes two passes, of which the first only looks whether all fit.
for pass = ARGV[#KEYS + 1] and 1 or 2, 2 do
  for i = 1, #KEYS do
    local lo, hi, heal, step, least, n, ttl = struct.unpack('>ddddddd', ARGV[i])
    local key, v, write = KEYS[i], lo, false
    local old = redis.call('GET', key)
    if old then
      local x
      if ttl < 0 then
        x = ((tonumber(string.sub(old, 1, -10)) or 0) - sec) * 1e9 + (tonumber(string.sub(old, -9)) - ns)
      else
        x = tonumber(old)
      end
      if x > lo then v = x end
    end
    if v > heal then v, write = math.max(hi, lo), true end
    if step > 0 then
      local room = hi - v
      if room < n * step then n = room > 0 and math.floor(room / step) or 0 end
    end
    if n < least then n = -1 end

    if pass == 1 then
      if n < 0 then apply, out[3] = false, 0 end
    else
      if n < 0 then
        n = 0
      elseif n > 0 and apply then
        v, write = math.max(v + n * step, lo), true
      end
      out[#out + 1] = n
      out[#out + 1] = v
      if ttl < 0 then
        if write and v > lo then
          local q = math.floor(v / 1e9)
          local rest = v - q * 1e9 + ns
          if rest >= 1e9 then q, rest = q + 1, rest - 1e9 end
          local ms = sec * 1000 + math.ceil((ns + (v - lo)) / 1e6)
          redis.call('SET', key, string.format('%d%09d', sec + q, rest), 'PXAT', string.format('%.0f', ms))
        elseif write and old then
          redis.call('DEL', key)
        end
      else
        local left = 0
        if old then
          if write then redis.call('SET', key, string.format('%.0f', v), 'KEEPTTL') end
          left = redis.call('PTTL', key)
          if left == 0 then left = 1 elseif left < 0 then left = 0 end
        elseif write and ttl > 0 then
          redis.call('SET', key, string.format('%.0f', v), 'PX', string.format('%.0f', ttl))
          left = ttl
        elseif write then
          redis.call('SET', key, string.format('%.0f', v))
        end
        out[#out + 1] = left
      end
    end
  end
end
return out
`)

	swap = newScript(`-- plainware swap
-- KEYS: a value. ARGV: the old and the new one, each "+" and the value or
-- empty for none; and the time to live in ms, 0 for ever.
local v, old, new = redis.call('GET', KEYS[1]), ARGV[1], ARGV[2]
if v then
  if old ~= '+' .. v then return 0 end
elseif old ~= '' then
  return 0
end
if new == '' then
  if v then redis.call('DEL', KEYS[1]) end
elseif ARGV[3] == '0' then
  redis.call('SET', KEYS[1], string.sub(new, 2))
else
  redis.call('SET', KEYS[1], string.sub(new, 2), 'PX', ARGV[3])
end
return 1
`)

	persist = newScript(`-- plainware persist
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('PERSIST', KEYS[1])
return 1
`)
)
