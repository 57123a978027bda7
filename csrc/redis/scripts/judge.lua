-- The decision, as csrc/core/decide.c, view.c and reserve.c have it.

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

-- Decides by S and C into W, N and fits. Returns whether the event is admitted, and for the client's
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
      W1[i], W2[i], W3[i] = S1[i], S2[i], S3[i]
      N1[i], N2[i] = S1[i], S2[i]
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
      N1[i], N2[i] = now + after, rest
      if us > 0 or frac > 0 then
        W1[i], W2[i] = now + us, frac
      else -- a time that is past stays past, wherever the clock goes
        W1[i], W2[i] = S1[i], S2[i]
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
      W1[i], W2[i], W3[i] = stop, current, previous
      N1[i], N2[i] = stop, current + cost
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

-- Charges what was admitted (unless it is a peek), and keeps of the rest how it stands: what a clock's
-- step left too far ahead is cut for good.
local function keep(admitted, peek, now)
  for i = 1, P.n do
    local free = C1[i] == 0 and C2[i] == 0
    if P.kind[i] == 3 then
      if not P.hole[i] and admitted and not peek and fits[i] and not free then
        log_add(S1[i], now, P.b[i], C1[i])
        changed = true
      end
    elseif free or not fits[i] or (admitted and peek) then
      S1[i], S2[i], S3[i] = W1[i], W2[i], W3[i]
    elseif admitted then
      S1[i], S2[i], S3[i], changed = N1[i], N2[i], W3[i], true
    end
  end
end

-- One check of one key. op: 0 peek, 1 hit, 2 reserve (by `ttl` us, under the claim `id`).
-- Returns what the client is to see, whether it was admitted, and the key's value afterwards.
local function check(value, keys, k, ring, now, op, ttl, id)
  parse(value, keys, ring)
  tidy(now)
  local admitted, seen = judge(now)
  keep(admitted, op == 0, now)
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
  local after = value
  if changed then
    after = store(keys[k], now)
  end
  return seen or value, admitted, after
end
