-- Checks of one limiter: any algorithms, several quotas; peek, hit, reserve.
-- KEYS: n state keys, each once, then for each of them the rings of its logs. ARGV: plan; a row of
-- costs for all checks, or one a check; '' or an I2 a check, the place of its key from 0; op (0 peek,
-- 1 hit, 2 reserve); for reserve I7 ttl in us, I7 id of the first check's claim (the next is one
-- more).
-- Reply: for each check what the client judges by, then the time. Without logs that is the key's value
-- as it was (nil: none). With logs it is a value with each log's state as I6 used, I7 time of its
-- newest entry, I7 time of the entry whose end makes room (0: none), and 1 in place of the expiry if
-- the value was of another shape. '!': not decided, the key holds what is not ours.
P = plan_of(ARGV[1])
local costs, index, op = ARGV[2], ARGV[3], tonumber(ARGV[4])
local n = #KEYS / (1 + P.logs)
local values, now = call('MGET', unpack(KEYS, 1, n)), clock()
local out, count = {}, index == '' and n or #index / 2
local pos = costs_of(costs, 1)
local one = pos > #costs
local ttl, id = 0, 0
if op == 2 then
  ttl, id = unbytes('<I7I7', ARGV[5])
end

-- A hit of one log where nothing rare happens: as check has it, without taking the value apart.
-- Returns nothing where it is not that plain.
local limit, period = P.a[1], P.b[1]
local plain = op == 1 and P.n == 1 and P.kind[1] == 3 and not P.hole[1] and period == P.c[1]

local L = {keep = period}

local function check_log(value, key, ring, cost)
  local expires, total, rh, rc, merged, h, t = unbytes('<I4I6BBI2BB', value, 3)
  local pos, stop = 19, 19 + (h + t) * ENTRY
  if t == 0 or #value ~= stop - 1 or sub(value, 1, 2) ~= P.head then
    return
  end
  local known, dropped = #value, false
  local newest = unbytes('<I7', value, stop - ENTRY)
  local oldest, first = unbytes('<I7I6', value, pos)
  if newest > now or now - newest >= period then
    return
  end
  L.ring, L.rh = ring, rh
  while now - oldest >= period do
    pos, total, merged = pos + ENTRY, total - first, merged > 0 and merged - 1 or 0
    if h > 1 or (h == 1 and rc == 0) then
      h = h - 1
    elseif h == 0 then
      t = t - 1
    else
      local bytes = chunk_get(L, 0)
      if not bytes then
        return
      end
      value = sub(value, 1, 18) .. bytes .. sub(value, pos)
      pos, stop, h, rh, rc = 19, stop - pos + 19 + CHUNK_BYTES, CHUNK, (rh + 1) % RING, rc - 1
      L.rh = rh
    end
    dropped = true
    oldest, first = unbytes('<I7I6', value, pos)
  end
  local used, freed, entry = total, 0, ''
  if used + cost <= limit or cost == 0 then
    if cost > 0 then
      local full = h + rc * CHUNK + t == MOST
      if newest == now or full then
        if span(newest, period) ~= span(now, period) then
          return
        end
        local n = unbytes('<I6', value, stop - 6)
        stop, t, entry = stop - ENTRY, t - 1, pack('<I7I6', now, n + cost)
      elseif t < CHUNK then
        entry = pack('<I7I6', now, cost)
      elseif h == 0 then
        h, t, entry = CHUNK, 0, pack('<I7I6', now, cost)
      else
        chunk_put(L, rc, sub(value, stop - CHUNK_BYTES, stop - 1), now)
        stop, rc, t, entry = stop - CHUNK_BYTES, rc + 1, 0, pack('<I7I6', now, cost)
      end
      total, t = total + cost, t + 1
    end
  elseif cost <= limit then
    freed = oldest
    if first < used + cost - limit then
      return
    end
  end
  if dropped or entry ~= '' then
    local last = (entry == '' and newest or now) + period
    local enough = last < expires * TICK20 and stop + #entry - pos >= known - 18
    if not enough then
      expires = floor((last + (last - now) / 8) / TICK20) + 1
    end
    local bytes = P.head .. pack('<I4I6BBI2BB', expires, total, rh, rc, merged, h, t)
      .. sub(value, pos, stop - 1) .. entry
    if enough then
      call('SETRANGE', key, '0', bytes)
    else
      replace(key, bytes, expires * TICK20, now)
    end
    value = bytes
  end
  return P.head .. pack('<I4I6I7I7', 0, used, newest, freed), true, value
end

local fine, seen, after, _
pos = 1
for j = 1, count do
  local k = index == '' and j or unbytes('<I2', index, 2 * j - 1) + 1
  if not one then
    pos = costs_of(costs, pos)
  end
  fine, seen = false, nil
  if plain and values[k] and #values[k] > 18 then
    fine, seen, _, after = pcall(check_log, values[k], KEYS[k], KEYS[n + k], C1[1])
  end
  if not (fine and seen) then
    fine, seen, _, after = pcall(check, values[k], KEYS, k, n + (k - 1) * P.logs + 1, now, op,
                                 ttl, id + j - 1)
  end
  if fine then
    out[j], values[k] = seen, after
  else
    out[j] = blame(seen)
  end
end
out[count + 1] = now
return out
