-- Replace a hash if the event is newer than the one it holds (I3), and let it expire by event time (I2).
--
-- KEYS[1]   the hash
-- ARGV      1 event time, us · 2 partition · 3 offset · 4 expiry, ms since 1970 · 5 how far ahead of now, us · 6… field, value, …
-- returns   1 applied · 0 older than what is there · -1 past its horizon · -2 from the future
--
-- Lua's numbers are doubles: exact up to 2^53, which microseconds and offsets stay below.
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local event_time, partition, offset = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if event_time > now_us + tonumber(ARGV[5]) then
  return -2
end
if tonumber(ARGV[4]) * 1000 <= now_us then
  return -1
end
local held = redis.call('HMGET', KEYS[1], '_t', '_o')
if held[1] then
  local held_time = tonumber(held[1])
  local colon = string.find(held[2], ':', 1, true)
  local held_partition = tonumber(string.sub(held[2], 1, colon - 1))
  local held_offset = tonumber(string.sub(held[2], colon + 1))
  if event_time < held_time
    or (event_time == held_time and (partition < held_partition or (partition == held_partition and offset <= held_offset))) then
    return 0
  end
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], '_t', ARGV[1], '_o', ARGV[2] .. ':' .. ARGV[3], unpack(ARGV, 6))
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 1
