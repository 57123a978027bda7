-- Concurrency: who holds how many slots of a key.
-- The value of a key: an entry an owner (a process): 16 bytes of its id, I4 count, I7 when it lapses
-- unless it is renewed, I4 its ttl in ms.
-- KEYS: any number. ARGV: op; the owner's id; I7 ttl in us; then an I6 a key: for acquire the limit,
-- for release how many, for renew how many the owner holds: its entry says so from then on, whatever
-- a reply that was lost left in doubt.
-- Ops: 'acquire' takes one, 'release', 'renew', 'count', 'leave' (the owner gives all back).
-- Reply: for each key held slots of all owners (acquire: -1 minus that, if it was refused; renew:
-- those of the owner alone); '!' if it holds what is not ours. Then the time.
local op, owner, numbers = ARGV[1], ARGV[2], ARGV[4]
local ttl = unbytes('<I7', ARGV[3])
local values, now = redis.call('MGET', unpack(KEYS)), clock()
local out = {}
local SIZE = 31

local function one(j)
  local key, value = KEYS[j], values[j]
  local number = numbers ~= '' and unbytes('<I6', numbers, 6 * j - 5) or 0
  local others, total, last, mine = {}, 0, 0, 0
  local changed = false
  if value and #value % SIZE ~= 0 then
    error('state')
  end
  for pos = 1, value and #value or 0, SIZE do
    local count, lapses, its_ttl = unbytes('<I4I7I4', value, pos + 16)
    local entry = sub(value, pos, pos + SIZE - 1)
    if lapses <= now then
      changed = true
    else
      if lapses > now + its_ttl * 1000 then -- the clock stepped back
        lapses, changed = now + its_ttl * 1000, true
        entry = sub(entry, 1, 16) .. pack('<I4I7I4', count, lapses, its_ttl)
      end
      if sub(value, pos, pos + 15) == owner then
        mine = count
      else
        others[#others + 1] = entry
        last = max(last, lapses)
      end
      total = total + count
    end
  end
  local reply
  if op == 'count' then
    return total
  elseif op == 'acquire' then
    if total < number then
      mine, reply, changed = mine + 1, total + 1, true
    else
      reply = -total - 1
    end
  elseif op == 'release' then
    local taken = min(mine, number)
    mine, reply, changed = mine - taken, total - taken, changed or taken > 0
  elseif op == 'leave' then
    reply, changed, mine = total - mine, changed or mine > 0, 0
  else
    reply, changed, mine = number, changed or mine > 0 or number > 0, number
  end
  if not changed then
    return reply
  end
  if mine > 0 then
    others[#others + 1] = owner .. pack('<I4I7I4', mine, now + ttl, math.ceil(ttl / 1000))
    last = max(last, now + ttl)
  end
  if #others == 0 then
    if value then
      redis.call('DEL', key)
    end
  elseif value then
    replace(key, table.concat(others), last, now)
  else
    create(key, table.concat(others), last, now)
  end
  return reply
end

for j = 1, #KEYS do
  local fine, reply = pcall(one, j)
  out[j] = fine and reply or blame(reply)
end
out[#KEYS + 1] = now
return out
