-- What the scripts share; embed.py puts it in front of each of them, and behind it of log.lua,
-- state.lua and judge.lua (the rule of csrc/core on a server) what that needs. A script's own ARGV,
-- KEYS and reply stand at its head.
--
-- Time is whole microseconds of the server's clock. A time that gcra computes is a pair (us, frac),
-- frac counting ticks of 1/16 ns from 0 to 15999. Products come from the client as such pairs or are
-- split here, so every number stays below 2^53, where a double is exact.
--
-- A plan, the first ARGV: B length of head, head, then a quota: B algorithm (0 gcra, 1 fixed-window,
-- 2 sliding-window, 3 sliding-log), B flags (1 shadow, 2 a hole: limits nothing), then for gcra
-- I7I2 capacity, I7I2 reach (twice that); for the others I6 limit, I7 period, I7 keep (the longest
-- period that the client knows of it). A row of costs: for gcra I7I2 (cost times interval; more than
-- the capacity if it never fits), for the others I6.
--
-- The value of a key, all little endian, so that it can be read by any version:
--   one gcra quota and nothing else, 9 bytes: I7 us, I2 frac + 16384 * grid of its expiry
--   else: head (B quotas, then two bits an algorithm, four a byte), I4 expiry in 2^20 us, the states,
--   and if there is a ban or an open reservation: I7 ban's end, I7 its length, I2 claims, then each
--   I7 id, I7 lapses, I7I2 the end of its interval for each gcra quota.
--   States: gcra I7I2; fixed-window I7 end, I6 count; sliding-window I7 end, I6 current, I6 previous;
--   sliding-log I6 total, B ring's head, B chunks, I2 merged, B h, B t, then h oldest and t newest
--   entries (I7 time, I6 count). Between them lie the chunks, of 8 entries each, in a ring of 32 in
--   a key of its own; a log of up to 16 entries has none.
--
-- A write sets an expiry a little past the state's end. Where the expiry that the key has suffices,
-- SETRANGE keeps it, at half the cost.
local call, pack, unbytes = redis.call, struct.pack, struct.unpack
local floor, min, max, fmod, sub = math.floor, math.min, math.max, math.fmod, string.sub

local FRAC, GRID_BIT, TICK20 = 16000, 16384, 1048576
local GRIDS = {[0] = 1048576, 8388608, 134217728, 17179869184} -- us
local ENTRY, CHUNK, CHUNK_BYTES, RING, MOST, SPANS = 13, 8, 104, 32, 256, 255

local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Milliseconds, as text, from now until `us`.
local function lifetime(us, now)
  return string.format('%.0f', floor((us - now) / 1000) + 1)
end

-- What a check replies that failed: '!' where its key is to blame. What the server refuses (out of
-- memory, read only), which begins with a word in capitals, fails the whole script.
local function blame(reason)
  local text = type(reason) == 'table' and reason.err or reason
  if string.find(text, '^%u%u+ ') and sub(text, 1, 9) ~= 'WRONGTYPE' then
    error({err = text})
  end
  return '!'
end

-- A new value of a key. A string that MGET did not show is of another type: that is an error.
local function create(key, value, us, now)
  if not call('SET', key, value, 'PX', lifetime(us, now), 'NX') then
    error('type')
  end
end

local function replace(key, value, us, now)
  call('PSETEX', key, lifetime(us, now), value)
end

-- ceil(a * b / c) for b <= c < 2^49 and a <= 2^41.
local function muldiv_up(a, b, c)
  local product = a * b
  if product < 9007199254740992 then
    return math.ceil(product / c)
  end
  local quotient, rest, unit = 0, 0, 4398046511104 -- 8^14
  for _ = 1, 15 do
    local digit = floor(a / unit)
    a = a - digit * unit
    unit = unit / 8
    local t = rest * 8 + digit * b
    local q = floor(t / c)
    quotient, rest = quotient * 8 + q, t - q * c
  end
  return rest > 0 and quotient + 1 or quotient
end

-- floor(at * 255 / period), up to a multiple of 255 that is the period's own.
local function span(at, period)
  local periods = floor(at / period)
  local rest = (at - periods * period) * 15
  local q = floor(rest / period)
  return periods * SPANS + q * 17 + floor((rest - q * period) * 17 / period)
end

-- The grid that suits a capacity: keys outlive their state by no more than a quarter of it or 1 s.
local function grid_of(capacity)
  local quarter = capacity / 4
  return quarter >= GRIDS[3] and 3 or quarter >= GRIDS[2] and 2 or quarter >= GRIDS[1] and 1 or 0
end
