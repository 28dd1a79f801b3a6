-- Take a lock that is free, together with a number that is greater than that of every earlier holder: its fence.
--
-- KEYS      1 the lock · 2 the last fence
-- ARGV      1 the holder's token · 2 expiry of the lock, ms from now · 3 expiry of the fence, ms from now
-- returns   the fence · nothing while somebody else holds it
--
-- The fence is the server's clock in microseconds, or one more than the last where that is ahead: so it keeps growing
-- also when its key has expired, or Redis was emptied.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return false
  end
  -- We took it just now, and the answer was lost on its way.
  return redis.call('GET', KEYS[2])
end
local time = redis.call('TIME')
local fence = math.max(time[1] * 1000000 + time[2], tonumber(redis.call('GET', KEYS[2]) or 0) + 1)
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text, 'PX', ARGV[3])
return text
