-- What changes one key and decides nothing: penalize, reward, ban, unban, reset, settle.
-- KEYS: state key, then the rings of its logs. ARGV: plan; op; then by op:
--   'penalize'  a row of costs; for gcra no more than the reach. Charged past the limit.
--   'reward'    the same, given back
--   'ban'       I7 length in us
--   'unban', 'reset'
--   'settle'    I7 claim, I7 lapses, then a quota: B 0 nothing, 1 more, 2 less; for gcra I7I2 the
--               amount; for the others I7 mark (its window's end, or the time it was logged), I6 units
-- Reply: the time; '!': nothing was done, the key holds what is not ours.
local op, argument = ARGV[2], ARGV[3]
local now, key = clock(), KEYS[1]

if op == 'reset' then
  redis.call('DEL', unpack(KEYS))
  return now
end

P = plan_of(ARGV[1])

-- Charges up to one burst past the limit.
local function exceed(i, cost, frac)
  local kind = P.kind[i]
  if kind == 0 then
    local us, rest = level(i, now)
    us, rest = us + cost, rest + frac
    if rest >= FRAC then
      us, rest = us + 1, rest - FRAC
    end
    if us > P.c[i] or (us == P.c[i] and rest > P.d[i]) then
      us, rest = P.c[i], P.d[i]
    end
    S1[i], S2[i] = now + us, rest
  elseif kind == 3 then
    local L = S1[i]
    log_add(L, now, P.b[i], min(cost, max(2 * P.a[i] - L.total, 0)))
  else
    S1[i], S2[i], S3[i] = roll(i, now)
    local used = kind == 1 and S2[i] or sliding_level(S1[i], S2[i], S3[i], now, P.b[i])
    S2[i] = S2[i] + min(cost, max(2 * P.a[i] - used, 0))
  end
end

-- Moves the intervals of gcra quota i of the claims from number `first` on towards now.
local function move(i, first, us, frac)
  local place = 15
  for q = 1, i - 1 do
    place = place + (P.kind[q] == 0 and 9 or 0)
  end
  for j = first, claims and #claims or 0 do
    local stop, rest = unbytes('<I7I2', claims[j], place)
    stop, rest = stop - us, rest - frac
    if rest < 0 then
      stop, rest = stop - 1, rest + FRAC
    end
    if stop < 0 then
      stop, rest = 0, 0
    end
    claims[j] = sub(claims[j], 1, place - 1) .. pack('<I7I2', stop, rest) .. sub(claims[j], place + 9)
  end
end

-- Gives (us, frac) back to gcra quota i, at most to full; claims from number `first` on move.
local function give(i, us, frac, first)
  local have, rest = level(i, now)
  if us > have or (us == have and frac > rest) then
    us, frac = have, rest
  end
  have, rest = have - us, rest - frac
  if rest < 0 then
    have, rest = have - 1, rest + FRAC
  end
  S1[i], S2[i] = now + have, rest
  move(i, first, us, frac)
end

-- Entries that were emptied count for nothing; at the end they would make the log look used.
local function log_trim(L, times, counts, n)
  while n > 0 and counts[n] == 0 do
    n = n - 1
  end
  log_store(L, -1, times, counts, n, now)
  L.merged = min(L.merged, n)
end

local function reward(i, cost, frac)
  local kind = P.kind[i]
  if kind == 0 then
    give(i, cost, frac, 1)
  elseif kind == 3 then
    local L = S1[i]
    local all = log_load(L, -1)
    local counts, n = all[2], all[3]
    for j = n, 1, -1 do
      local taken = min(counts[j], cost)
      counts[j], cost, L.total = counts[j] - taken, cost - taken, L.total - taken
    end
    log_trim(L, all[1], counts, n)
  else
    S1[i], S2[i], S3[i] = roll(i, now)
    local taken = min(cost, S2[i])
    S2[i], S3[i] = S2[i] - taken, kind == 2 and max(S3[i] - (cost - taken), 0) or 0
  end
end

-- Of a window, what the mark's own window still counts.
local function refund_window(i, mark, units)
  S1[i], S2[i], S3[i] = roll(i, now)
  if S1[i] == mark then
    S2[i] = max(S2[i] - units, 0)
  elseif P.kind[i] == 2 and S1[i] == mark + P.b[i] then
    S3[i] = max(S3[i] - units, 0)
  end
end

-- Of a log, the entry of that very time, or else the first later one: the event was merged into it.
local function refund_log(L, period, mark, units)
  mark = min(mark, now)
  if now - mark >= period or L.t == 0 then
    return
  end
  local all = log_load(L, -1)
  local times, counts, n = all[1], all[2], all[3]
  local first = 1
  while first <= n and times[first] < mark do
    first = first + 1
  end
  if first <= n then
    local taken = min(counts[first], units)
    counts[first], L.total = counts[first] - taken, L.total - taken
  end
  log_trim(L, times, counts, n)
end

local function settle()
  local claim, lapses, pos = unbytes('<I7I7', argument)
  local any, found = false, nil
  for j = 1, claims and #claims or 0 do
    if unbytes('<I7', claims[j]) == claim then
      found = j
    end
  end
  for i = 1, P.n do
    local action, a, b
    action, pos = unbytes('<B', argument, pos)
    if P.kind[i] == 0 then
      a, b, pos = unbytes('<I7I2', argument, pos)
    else
      a, b, pos = unbytes('<I7I6', argument, pos)
    end
    if P.hole[i] or action == 0 then
      action = 0
    elseif action == 1 then
      exceed(i, P.kind[i] == 0 and a or b, b)
      any = true
    elseif found and now < lapses then
      any = true
      if P.kind[i] == 3 then
        refund_log(S1[i], P.b[i], a, b)
      elseif P.kind[i] ~= 0 then
        refund_window(i, a, b)
      else
        local place = 15
        for q = 1, i - 1 do
          place = place + (P.kind[q] == 0 and 9 or 0)
        end
        local us, frac = unbytes('<I7I2', claims[found], place)
        us = us - now
        if us < 0 then
          us, frac = 0, 0
        end
        if a < us or (a == us and b < frac) then
          us, frac = a, b
        end
        give(i, us, frac, found + 1)
      end
    end
  end
  if found then
    table.remove(claims, found)
    tidy(now)
    any = true
  end
  return any
end

local value = redis.call('MGET', key)[1]

local function act()
  parse(value, KEYS, 2)
  for i = 1, P.n do
    if P.kind[i] == 3 and not P.hole[i] then
      log_look(S1[i], now, S1[i].keep)
    end
  end
  local store_it = true
  if op == 'penalize' or op == 'reward' then
    costs_of(argument, 1)
    for i = 1, P.n do
      if op == 'penalize' and not P.hole[i] and (C1[i] > 0 or C2[i] > 0) then
        exceed(i, C1[i], C2[i])
      elseif op == 'reward' and not P.hole[i] and value then
        reward(i, C1[i], C2[i])
      end
    end
  elseif op == 'ban' then
    ban_length = unbytes('<I7', argument)
    ban, claims = now + ban_length, claims or {}
  elseif op == 'unban' then
    ban = 0
    tidy(now)
  else
    store_it = settle()
  end
  if store_it then
    store(key, now)
  end
end

local fine, reason = pcall(act)
return fine and now or blame(reason)
