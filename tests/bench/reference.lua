-- Plain gcra, one check: what the Redis rows of the benchmarks are measured against.
-- KEYS[1]: a key; ARGV: microseconds a unit, units at once. 1: admitted, 0: refused.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then
  tat = now
end
local after = tat + interval
if after - now > burst * interval then
  return 0
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return 1
