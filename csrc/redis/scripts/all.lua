-- Several limiters and keys: all admit, or none is charged.
-- KEYS: for each entry its state key, then the rings of its logs; no state key twice. ARGV: for each
-- entry its plan and a row of costs, in front of which stands B 1 if its limiter is a shadow (it holds
-- nothing back, and is charged if it admits).
-- Reply: for each entry what the client judges by, as decide.lua says, then 1 or 0 (whether all were
-- admitted), then the time.
local now, out, entries = clock(), {}, #ARGV / 2
local states, all = {}, 1
local k = 1

for j = 1, entries do
  local plan = plan_of(ARGV[2 * j - 1])
  local costs = ARGV[2 * j]
  states[j] = {plan, k, redis.call('MGET', KEYS[k])[1], costs}
  P = plan
  costs_of(costs, 2)
  local fine, seen, admitted = pcall(check, states[j][3], KEYS, k, k + 1, now, 0, 0, 0)
  if not fine then
    out[j], all = blame(seen), 0
  else
    out[j] = seen
    states[j][5] = admitted
    if not admitted and string.byte(costs) == 0 then
      all = 0
    end
  end
  k = k + 1 + plan.logs
end

-- What a look alone would leave too far ahead is cut, as by any refused event: not charged, so only
-- where it admitted nothing.
for j = 1, entries do
  local plan, key, value, costs, admitted = unpack(states[j], 1, 5)
  if all == 1 and admitted then
    P = plan
    for i = 1, plan.n do
      if plan.kind[i] == 3 then
        S1[i] = {}
      end
    end
    costs_of(costs, 2)
    check(redis.call('GET', KEYS[key]), KEYS, key, key + 1, now, 1, 0, 0)
  end
end
out[entries + 1] = all
out[entries + 2] = now
return out
