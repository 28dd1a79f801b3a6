-- Count up, with an expiry that begins with the first count.
--
-- KEYS[1]   the counter
-- ARGV      1 by how much · 2 expiry, ms from the first count on
-- returns   the count
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return count
