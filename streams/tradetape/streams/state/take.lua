-- Grant calls under a limit: never more than so many in any span of time, by the server's clock.
--
-- KEYS[1]   the instants of the last grants, us since 1970, the oldest first
-- ARGV      1 how many calls · 2 in which span, us · 3 how many of them this one counts for
-- returns   0 granted · otherwise how long to wait before it may be, us
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local calls, span_us, weight = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- A clock that was set back must not make the list go back with it.
now_us = math.max(now_us, tonumber(redis.call('LINDEX', KEYS[1], -1) or 0))
local excess = redis.call('LLEN', KEYS[1]) + weight - calls
if excess > 0 then
  local since_us = now_us - tonumber(redis.call('LINDEX', KEYS[1], excess - 1))
  if since_us <= span_us then
    return span_us + 1 - since_us
  end
  redis.call('LTRIM', KEYS[1], excess, -1)
end
local instant = string.format('%.0f', now_us)
for _ = 1, weight do
  redis.call('RPUSH', KEYS[1], instant)
end
redis.call('PEXPIRE', KEYS[1], math.ceil(span_us / 1000) + 1)
return 0
