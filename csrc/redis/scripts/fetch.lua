-- All that is kept of one key, from which the client can foretell (wait).
-- KEYS: state key, then the rings of its logs. Reply: their values (nil: none), then the time.
local values, now = redis.call('MGET', unpack(KEYS)), clock()
values[#KEYS + 1] = now
return values
