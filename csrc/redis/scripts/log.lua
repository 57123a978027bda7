-- The sliding log, as csrc/core/log.c has it, in chunks.
--
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

-- A clock that stepped back: what is ahead of now becomes one entry of now.
local function log_cut(L, now)
  local all = log_load(L, -1)
  local times, counts, n = all[1], all[2], all[3]
  local count = 0
  while n > 0 and times[n] >= now do
    n, count = n - 1, count + counts[n]
  end
  L.merged = min(L.merged, n)
  n = n + 1
  times[n], counts[n] = now, count
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
  local full = log_length(L) == MOST
  if L.t > 0 then
    local at, count = unbytes('<I7I6', L.e, #L.e - 12)
    if at == now or (full and span(at, period) == span(now, period)) then
      L.e, L.total = sub(L.e, 1, -ENTRY - 1) .. pack('<I7I6', now, count + cost), L.total + cost
      return
    end
  end
  if full then
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
