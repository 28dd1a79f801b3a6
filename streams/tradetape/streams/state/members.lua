-- Add members to a set of integers, which expires by event time (I2). Its size is a count that no repeat raises.
--
-- KEYS[1]   the set; of up to 512 integers Redis keeps 8 bytes each
-- ARGV      1 expiry, ms since 1970 · 2… members
-- returns   1 some were new · 0 none was · -1 past its horizon
local time = redis.call('TIME')
if tonumber(ARGV[1]) <= time[1] * 1000 + time[2] / 1000 then
  return -1
end
local added = redis.call('SADD', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return added > 0 and 1 or 0
