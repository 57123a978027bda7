-- A plan, a row of costs, and the value of a key taken apart and put together.

local P -- the plan in use: n, head, kind, shadow, hole, a, b, c, d (its numbers), logs, gcras, simple
local C1, C2 = {}, {} -- the costs in use
local S1, S2, S3 = {}, {}, {} -- the states of a key; a log's S1 is an L
local W1, W2, W3 = {}, {}, {} -- as they stand, uncharged: rolled on, and cut to their reach
local N1, N2, fits = {}, {}, {} -- what a charge makes of the first two; whether the quota admits
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
