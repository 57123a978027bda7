-- Many hits of limiters with one gcra quota: the hot path.
-- KEYS: state keys, each once. ARGV: plan; a row of costs for all checks, or one a check; '' or, for
-- checks of one key several times, an I2 a check, the place of its key from 0.
-- Reply: for each check the key's value as it was before (nil: none; '!': not decided, the key holds
-- what is not ours), then the time. The verdict is the client's to compute, from the same numbers.
local costs, index, n = ARGV[2], ARGV[3], #KEYS
local values, now = call('MGET', unpack(KEYS)), clock()
local cap, cap_frac, reach, reach_frac = unbytes('<I7I2I7I2', ARGV[1], 6) -- of one gcra quota
local own_grid = grid_of(cap)
local own, own_mark = GRIDS[own_grid], own_grid * GRID_BIT
local keys, one = KEYS, #costs == 9
local cost, cost_frac = unbytes('<I7I2', costs)
local out, texts, count = values, {}, n
local check, C1, C2 -- of the whole rule, which is made only where it is needed
if index ~= '' then
  out, count = {}, #index / 2
end

for j = 1, count do
  local k = j
  if index ~= '' then
    k = unbytes('<I2', index, 2 * j - 1) + 1
    out[j] = values[k]
  end
  if not one then
    cost, cost_frac = unbytes('<I7I2', costs, 9 * j - 8)
  end
  local value = values[k]
  if not value or #value == 9 then
    local us, frac, stop, mark, cut = 0, 0, 0, 0, false
    if value then
      us, frac = unbytes('<I7I2', value)
      local grid = own
      if frac < GRID_BIT then
        grid = 1048576
      else
        local number = floor(frac / GRID_BIT)
        grid, mark = GRIDS[number], number * GRID_BIT
        frac = frac - mark
      end
      stop = (floor(us / grid) + 1) * grid
      us = us - now
      if us < 0 then
        us, frac = 0, 0
      elseif us > reach or (us == reach and frac > reach_frac) then
        us, frac, cut = reach, reach_frac, true
      end
    end
    local after, rest = us + cost, frac + cost_frac
    if rest >= FRAC then
      after, rest = after + 1, rest - FRAC
    end
    if after < cap or (after == cap and rest <= cap_frac) then
      us, frac, cut = after, rest, cost > 0 or cost_frac > 0 or cut
    end
    if cut then
      us = us + now
      if us + 1 < stop then
        value = pack('<I7I2', us, frac + mark)
        call('SETRANGE', keys[k], '0', value)
      else
        stop = (floor(us / own) + 1) * own
        local text = texts[stop]
        if not text then
          text = lifetime(stop, now)
          texts[stop] = text
        end
        if value then
          value = pack('<I7I2', us, frac + own_mark)
          call('PSETEX', keys[k], text, value)
        else
          value = pack('<I7I2', us, frac + own_mark)
          if not call('SET', keys[k], value, 'PX', text, 'NX') then
            out[j], value = '!', false
          end
        end
      end
      if index ~= '' then
        values[k] = value
      end
    end
  else
    if not check then
      check, C1, C2 = rule(ARGV[1])
    end
    C1[1], C2[1] = cost, cost_frac
    local fine, reason, _, after = pcall(check, value, keys, k, 0, now, 1)
    if not fine then
      out[j] = blame(reason)
    elseif index ~= '' then
      values[k] = after
    end
  end
end
out[count + 1] = now
return out
