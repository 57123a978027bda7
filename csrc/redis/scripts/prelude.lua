-- What the scripts share: the rule of csrc/core (decide.c, log.c, reserve.c) on a server. The build
-- puts this in front of each of them; a script's own ARGV, KEYS and reply stand at its head.
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

---- the log ------------------------------------------------------------------------------------
-- L: total, rh (the ring's first chunk), rc (chunks), merged, h, t, e (the h + t entries as bytes),
-- ring (its key), keep; `changed`: it must be stored even if nothing is charged.
-- No chunks without an oldest entry outside them, and no entry without a newest one.

local function log_empty(L)
  L.total, L.rh, L.rc, L.merged, L.h, L.t, L.e = 0, 0, 0, 0, 0, 0, ''
end

local function log_length(L)
  return L.h + L.rc * CHUNK + L.t
end

local function chunk_get(L, c)
  local from = (L.rh + c) % RING * CHUNK_BYTES
  local bytes = call('GETRANGE', L.ring, from, from + CHUNK_BYTES - 1)
  return #bytes == CHUNK_BYTES and bytes or nil
end

local function chunk_put(L, c, bytes, now)
  local newest = unbytes('<I7', bytes, CHUNK_BYTES - ENTRY + 1)
  call('SETRANGE', L.ring, (L.rh + c) % RING * CHUNK_BYTES, bytes)
  call('PEXPIRE', L.ring, lifetime(max(newest, now) + 2 * L.keep, now))
end

-- The ring is gone (the server evicted it): what is left of the log is what stands outside.
local function log_heal(L)
  local total = 0
  for pos = 1, #L.e, ENTRY do
    total = total + unbytes('<I6', L.e, pos + 7)
  end
  L.total, L.rc, L.merged, L.changed = total, 0, 0, true
end

-- The entries from chunk c on (-1: all) as two arrays.
local function log_load(L, c)
  local pieces, times, counts, n = {}, {}, {}, 0
  pieces[1] = c < 0 and sub(L.e, 1, L.h * ENTRY) or ''
  for k = max(c, 0), L.rc - 1 do
    local bytes = chunk_get(L, k)
    if not bytes then
      log_heal(L)
      return log_load(L, -1), true
    end
    pieces[#pieces + 1] = bytes
  end
  pieces[#pieces + 1] = sub(L.e, L.h * ENTRY + 1)
  local bytes = table.concat(pieces)
  for pos = 1, #bytes, ENTRY do
    n = n + 1
    times[n], counts[n] = unbytes('<I7I6', bytes, pos)
  end
  return {times, counts, n}
end

-- Stores n entries in place of those from chunk c on (-1: all).
local function log_store(L, c, times, counts, n, now)
  local parts = {}
  for i = 1, n do
    parts[i] = pack('<I7I6', times[i], counts[i])
  end
  local head, from = '', 1
  L.changed = true
  if c < 0 then
    L.rh, L.rc, L.h = 0, 0, 0
    if n > CHUNK then
      head, from, L.h = table.concat(parts, '', 1, CHUNK), CHUNK + 1, CHUNK
    end
  else
    head, L.rc = sub(L.e, 1, L.h * ENTRY), c
  end
  while n - from + 1 > CHUNK do
    chunk_put(L, L.rc, table.concat(parts, '', from, from + CHUNK - 1), now)
    L.rc, from = L.rc + 1, from + CHUNK
  end
  L.t = n - from + 1
  L.e = head .. table.concat(parts, '', from, n)
  if L.t == 0 then -- only where all is empty
    log_empty(L)
  end
end

-- A clock that stepped back: times ahead of now become now.
local function log_cut(L, now)
  local all = log_load(L, -1)
  local times, counts, n = all[1], all[2], all[3]
  for i = n, 1, -1 do
    if times[i] <= now then
      break
    end
    times[i] = now
    L.merged = min(L.merged, i - 1)
  end
  log_store(L, -1, times, counts, n, now)
end

-- Drops what is `keep` old.
local function log_look(L, now, keep)
  local e = L.e
  if L.t == 0 then
    return
  end
  local newest = unbytes('<I7', e, #e - 12)
  if newest > now then
    log_cut(L, now)
    e, newest = L.e, now
  end
  if now - newest >= keep then
    log_empty(L)
    L.changed = true
    return
  end
  local at, count = unbytes('<I7I6', e)
  if now - at < keep then
    return
  end
  local pos, h, t, total, merged = 1, L.h, L.t, L.total, L.merged
  repeat
    pos, total = pos + ENTRY, total - count
    merged = merged > 0 and merged - 1 or 0
    if h > 0 then
      h = h - 1
    else
      t = t - 1
    end
    if h == 0 and L.rc > 0 then
      local bytes = chunk_get(L, 0)
      e, pos = (bytes or '') .. sub(e, pos), 1
      if bytes then
        h, L.rh, L.rc = CHUNK, (L.rh + 1) % RING, L.rc - 1
      else
        L.e, L.t = e, t
        log_heal(L)
        total, merged = L.total, 0
      end
    end
    at, count = unbytes('<I7I6', e, pos)
  until now - at < keep
  L.e, L.h, L.t, L.total, L.merged, L.changed = sub(e, pos), h, t, total, merged, true
end

-- Whether `cost` fits; what is used; the time of the entry whose end makes room for it.
local function log_decide(L, limit, period, now, cost)
  local used, rc, left = L.total, L.rc, nil
  if L.t == 0 or (L.keep <= period and (cost == 0 or used + cost <= limit)) then
    return cost == 0 or used + cost <= limit, used, 0
  end
  local e, pos, stop, c = L.e, 1, L.h * ENTRY, 0
  while true do
    while pos <= stop do
      local at, count = unbytes('<I7I6', e, pos)
      pos = pos + ENTRY
      if not left then
        if now - at >= period then
          used = used - count
        elseif cost == 0 or used + cost <= limit then
          return true, used, 0
        elseif cost > limit then
          return false, used, 0
        else
          left = used + cost - limit
        end
      end
      if left then
        if count >= left then
          return false, used, at
        end
        left = left - count
      end
    end
    if c < rc then
      e, pos, stop = chunk_get(L, c), 1, CHUNK_BYTES
      if not e then
        log_heal(L)
        return log_decide(L, limit, period, now, cost)
      end
    elseif c == rc then
      e, pos, stop = L.e, L.h * ENTRY + 1, #L.e
    else
      return cost == 0 or used + cost <= limit, used, 0
    end
    c = c + 1
  end
end

-- Joins the entries of one span from number `merged` on; those before share none.
local function log_merge(L, period, now)
  if L.t == 0 then
    return
  end
  local first = max(L.merged - 1, 0)
  local c = first < L.h and -1 or min(floor((first - L.h) / CHUNK), L.rc)
  local all, healed = log_load(L, c)
  if healed then
    c, first = -1, 0
  end
  local times, counts, n = all[1], all[2], all[3]
  local before = c < 0 and 0 or L.h + c * CHUNK
  local to = first - before + 1
  local last = span(times[to], period)
  for from = to + 1, n do
    local own = span(times[from], period)
    if own == last then
      times[to], counts[to] = times[from], counts[to] + counts[from]
    else
      to = to + 1
      times[to], counts[to], last = times[from], counts[from], own
    end
  end
  log_store(L, c, times, counts, to, now)
  L.merged = before + to
end

local function log_add(L, now, period, cost)
  if cost == 0 then
    return
  end
  L.changed = true
  if log_length(L) == MOST then
    local at, count = unbytes('<I7I6', L.e, #L.e - 12)
    if span(at, period) == span(now, period) then
      L.e, L.total = sub(L.e, 1, -ENTRY - 1) .. pack('<I7I6', now, count + cost), L.total + cost
      return
    end
    log_merge(L, period, now)
    if log_length(L) == MOST then
      log_look(L, now, period) -- it was kept, and merged, by a longer period
      L.merged = 0
      log_merge(L, period, now)
    end
  end
  if L.t == CHUNK then
    if L.h == 0 then
      L.h, L.t = CHUNK, 0
    else
      chunk_put(L, L.rc, sub(L.e, L.h * ENTRY + 1), now)
      L.rc, L.t, L.e = L.rc + 1, 0, sub(L.e, 1, L.h * ENTRY)
    end
  end
  L.e, L.t, L.total = L.e .. pack('<I7I6', now, cost), L.t + 1, L.total + cost
end

---- a plan, a row of costs, a key's value --------------------------------------------------------

local P -- the plan in use: n, head, kind, shadow, hole, a, b, c, d (its numbers), logs, gcras, simple
local C1, C2 = {}, {} -- the costs in use
local S1, S2, S3 = {}, {}, {} -- the states of a key; a log's S1 is an L
local N1, N2, N3, fits = {}, {}, {}, {} -- what they become, and whether their quotas admit
local ban, ban_length, claims -- of a key
local expiry, known -- us that its expiry is not before; its bytes, or false
local changed, other -- whether it must be stored; whether it was of another shape

local function plan_of(bytes)
  local length, pos = unbytes('<B', bytes)
  local p = {head = sub(bytes, pos, pos + length - 1), kind = {}, shadow = {}, hole = {}, a = {},
             b = {}, c = {}, d = {}, logs = 0, gcras = 0}
  p.n = string.byte(p.head)
  pos = pos + length
  for i = 1, p.n do
    local kind, flags
    kind, flags, pos = unbytes('<BB', bytes, pos)
    p.kind[i], p.shadow[i], p.hole[i] = kind, flags % 2 == 1, flags >= 2
    if kind == 0 then
      p.a[i], p.b[i], p.c[i], p.d[i], pos = unbytes('<I7I2I7I2', bytes, pos)
      p.gcras = p.gcras + 1
    else
      p.a[i], p.b[i], p.c[i], pos = unbytes('<I6I7I7', bytes, pos)
      if kind == 3 then
        p.logs = p.logs + 1
        S1[i] = {}
      end
    end
  end
  p.simple = p.n == 1 and p.kind[1] == 0
  return p
end

local function costs_of(bytes, pos)
  for i = 1, P.n do
    if P.kind[i] == 0 then
      C1[i], C2[i], pos = unbytes('<I7I2', bytes, pos)
    else
      C1[i], C2[i], pos = unbytes('<I6', bytes, pos), 0, pos + 6
    end
  end
  return pos
end

-- The grid that suits a capacity: keys outlive their state by no more than a quarter of it or 1 s.
local function grid_of(capacity)
  local quarter = capacity / 4
  return quarter >= GRIDS[3] and 3 or quarter >= GRIDS[2] and 2 or quarter >= GRIDS[1] and 1 or 0
end

local function fresh()
  for i = 1, P.n do
    if P.kind[i] == 3 then
      log_empty(S1[i])
    else
      S1[i], S2[i], S3[i] = 0, 0, 0
    end
  end
end

local function log_parse(L, value, pos)
  L.total, L.rh, L.rc, L.merged, L.h, L.t, pos = unbytes('<I6BBI2BB', value, pos)
  local stop = pos + (L.h + L.t) * ENTRY
  L.e = sub(value, pos, stop - 1)
  if #L.e ~= stop - pos or L.h > CHUNK or L.t > CHUNK or L.rc >= RING
      or (L.t == 0 and L.h + L.rc > 0) or (L.h == 0 and L.rc > 0) then
    error('state')
  end
  return stop
end

-- Takes a value (false: none) apart. keys[k] on are the rings.
local function parse(value, keys, k)
  ban, ban_length, claims, expiry, known, changed, other = 0, 0, nil, 0, value, false, false
  for i = 1, P.n do
    if P.kind[i] == 3 then
      local L = S1[i]
      L.ring, L.keep, L.changed, k = keys[k], P.c[i], false, k + 1
    end
  end
  if value and P.simple and #value == 9 then
    local us, frac = unbytes('<I7I2', value)
    local grid = floor(frac / GRID_BIT)
    S1[1], S2[1] = us, frac - grid * GRID_BIT
    expiry = (floor(us / GRIDS[grid]) + 1) * GRIDS[grid]
    return
  end
  local length = #P.head
  if not value or sub(value, 1, length) ~= P.head then
    other = value and true
    return fresh()
  end
  local pos
  expiry, pos = unbytes('<I4', value, length + 1)
  expiry = expiry * TICK20
  for i = 1, P.n do
    local kind = P.kind[i]
    if kind == 0 then
      S1[i], S2[i], pos = unbytes('<I7I2', value, pos)
    elseif kind == 1 then
      S1[i], S2[i], pos = unbytes('<I7I6', value, pos)
    elseif kind == 2 then
      S1[i], S2[i], S3[i], pos = unbytes('<I7I6I6', value, pos)
    else
      pos = log_parse(S1[i], value, pos)
    end
  end
  if pos <= #value then
    local count
    ban, ban_length, count, pos = unbytes('<I7I7I2', value, pos)
    claims = {}
    local size = 14 + 9 * P.gcras
    if #value ~= pos + count * size - 1 then
      error('state')
    end
    for j = 1, count do
      claims[j] = sub(value, pos, pos + size - 1)
      pos = pos + size
    end
  end
end

local function extension()
  return pack('<I7I7I2', ban, ban_length, #claims) .. table.concat(claims)
end

-- Drops what of ban and claims counts no more. Of either, the other stays.
local function tidy(now)
  if claims then
    if ban > now + ban_length then
      ban, changed = now + ban_length, true
    end
    local lapses = 0
    for j = 1, #claims do
      lapses = max(lapses, (unbytes('<I7', claims[j], 8)))
    end
    if ban <= now and lapses <= now then
      ban, ban_length, claims, changed = 0, 0, nil, true
    end
  end
end

local function unlapsed(now)
  local kept = {}
  for j = 1, claims and #claims or 0 do
    if unbytes('<I7', claims[j], 8) > now then
      kept[#kept + 1] = claims[j]
    end
  end
  return kept
end

-- Stores the states as S and what belongs to them say; returns the new value (false: none is left).
local function store(key, now)
  local last, parts = 0, {}
  for i = 1, P.n do
    local kind, s1 = P.kind[i], S1[i]
    if kind == 0 then
      last = max(last, S2[i] > 0 and s1 + 1 or s1)
      parts[i] = pack('<I7I2', s1, S2[i])
    elseif kind == 1 then
      last = S2[i] > 0 and max(last, s1) or last
      parts[i] = pack('<I7I6', s1, S2[i])
    elseif kind == 2 then
      last = S2[i] > 0 and max(last, s1 + P.c[i]) or S3[i] > 0 and max(last, s1) or last
      parts[i] = pack('<I7I6I6', s1, S2[i], S3[i])
    else
      last = s1.t > 0 and max(last, unbytes('<I7', s1.e, #s1.e - 12) + s1.keep) or last
      parts[i] = pack('<I6BBI2BB', s1.total, s1.rh, s1.rc, s1.merged, s1.h, s1.t) .. s1.e
    end
  end
  if claims then
    last = max(last, ban)
    for j = 1, #claims do
      last = max(last, (unbytes('<I7', claims[j], 8)))
    end
    parts[P.n + 1] = extension()
  end
  if last <= now then
    if known then
      call('DEL', key)
    end
    return false
  end
  local value, enough
  if P.simple and not claims then
    local grid = grid_of(P.a[1])
    enough = last < expiry and known and #known == 9
    if enough then
      grid = floor(string.byte(known, 9) / 64)
    else
      expiry = (floor(S1[1] / GRIDS[grid]) + 1) * GRIDS[grid]
    end
    value = pack('<I7I2', S1[1], S2[1] + grid * GRID_BIT)
  else
    local body = table.concat(parts)
    enough = last < expiry and known and #known <= #P.head + 4 + #body and not other
    if not enough then
      expiry = (floor((last + (last - now) / 8) / TICK20) + 1) * TICK20
    end
    value = P.head .. pack('<I4', expiry / TICK20) .. body
  end
  if enough then
    call('SETRANGE', key, '0', value)
  elseif known then
    replace(key, value, expiry, now)
  else
    create(key, value, expiry, now)
  end
  return value
end

---- the decision ---------------------------------------------------------------------------------

-- The gcra level of quota i: what is ahead of now, cut to its reach.
local function level(i, now)
  local us, frac = S1[i] - now, S2[i]
  if us < 0 then
    return 0, 0
  end
  if us > P.c[i] or (us == P.c[i] and frac > P.d[i]) then
    changed = true
    return P.c[i], P.d[i]
  end
  return us, frac
end

-- The windows of quota i at now: end, current (or the count), previous.
local function roll(i, now)
  local stop, current, previous, period = S1[i], S2[i], S3[i], P.b[i]
  if P.kind[i] == 1 then
    previous = 0
    if now >= stop then
      current = 0
    end
  elseif now >= stop then
    if now - stop < period then
      previous, stop = current, stop + period
    else
      previous = 0
    end
    current = 0
  end
  if current == 0 and previous == 0 then
    stop = now + period
  elseif stop > now + period then
    stop, changed = now + period, true
  end
  return stop, current, previous
end

local function sliding_level(stop, current, previous, now, period)
  return previous == 0 and current or current + muldiv_up(previous, stop - now, period)
end

-- Decides by S and C into N and fits. Returns whether the event is admitted, and for the client's
-- own judgement, where there are logs, what it is to see.
local function judge(now)
  local admitted, seen = not (ban > now and ban_length > 0), P.logs > 0 and {} or nil
  for i = 1, P.n do
    local kind, a, b = P.kind[i], P.a[i], P.b[i]
    local ok, cost = true, C1[i]
    if seen and kind ~= 3 then
      seen[i] = kind == 0 and pack('<I7I2', S1[i], S2[i]) or kind == 1 and pack('<I7I6', S1[i], S2[i])
        or pack('<I7I6I6', S1[i], S2[i], S3[i])
    end
    if P.hole[i] then
      N1[i], N2[i], N3[i] = S1[i], S2[i], S3[i]
      if kind == 3 then
        seen[i] = pack('<I6I7I7', 0, 0, 0)
      end
    elseif kind == 0 then
      local us, frac = level(i, now)
      local after, rest = us + cost, frac + C2[i]
      if rest >= FRAC then
        after, rest = after + 1, rest - FRAC
      end
      ok = after < a or (after == a and rest <= b) or (cost == 0 and C2[i] == 0)
      if ok then
        N1[i], N2[i] = now + after, rest
      else
        N1[i], N2[i] = now + us, frac
      end
    elseif kind == 3 then
      local L, used, freed = S1[i], nil, nil
      log_look(L, now, L.keep)
      ok, used, freed = log_decide(L, a, b, now, cost)
      changed = changed or L.changed
      seen[i] = pack('<I6I7I7', used, L.t > 0 and unbytes('<I7', L.e, #L.e - 12) or 0, freed)
    else
      local stop, current, previous = roll(i, now)
      -- What was rolled on under these numbers stays so, should they change.
      changed = changed or (kind == 2 and stop ~= S1[i] and S2[i] + S3[i] > 0)
      local used = kind == 1 and current or sliding_level(stop, current, previous, now, b)
      ok = used + cost <= a or cost == 0
      N1[i], N2[i], N3[i] = stop, ok and current + cost or current, previous
    end
    fits[i] = ok
    if not ok and not P.shadow[i] then
      admitted = false
    end
  end
  if seen then
    seen = P.head .. pack('<I4', other and 1 or 0) .. table.concat(seen)
    if claims then
      seen = seen .. extension()
    end
  end
  return admitted, seen
end

-- Makes N what was admitted of it, or of what is not charged, the state as it stands.
local function settle_on_next(admitted, now)
  for i = 1, P.n do
    local free = C1[i] == 0 and C2[i] == 0
    if P.kind[i] == 3 then
      if admitted and fits[i] and not P.hole[i] then
        log_add(S1[i], now, P.b[i], C1[i])
        changed = changed or not free
      end
    elseif admitted or free or not fits[i] then
      S1[i], S2[i], S3[i] = N1[i], N2[i], N3[i]
      changed = changed or (admitted and fits[i] and not free and not P.hole[i])
    end
  end
end

-- One check of one key. op: 0 peek, 1 hit, 2 reserve (by `ttl` us, under the claim `id`).
-- Returns what the client is to see, whether it was admitted, and the key's value afterwards.
local function check(value, keys, k, ring, now, op, ttl, id)
  parse(value, keys, ring)
  if op > 0 then
    tidy(now)
  end
  local admitted, seen = judge(now)
  if op == 0 then
    changed = false -- but for a log that had to be read or cut
    for i = 1, P.n do
      changed = changed or (P.kind[i] == 3 and S1[i].changed)
    end
  else
    settle_on_next(admitted, now)
    if op == 2 and admitted then
      local claim = {pack('<I7I7', id, now + ttl)}
      for i = 1, P.n do
        if P.kind[i] == 0 then
          local charged = fits[i] and not P.hole[i]
          claim[#claim + 1] = pack('<I7I2', charged and S1[i] or 0, charged and S2[i] or 0)
        end
      end
      local kept = unlapsed(now)
      kept[#kept + 1] = table.concat(claim)
      claims, changed = kept, true
    end
  end
  local after = value
  if changed then
    after = store(keys[k], now)
  end
  return seen or value, admitted, after
end
