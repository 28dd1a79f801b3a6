-- Write what was decided, unless the account has moved on since it was read, or this is not the Redis that was read.
--
-- KEYS[1] account · 2 open · 3 last · 4… answers
-- ARGV[1] run_id · 2 generation · 3 version, as read ('' for none) · 4 generation to begin, '' to go on · 5 expiry, ms
--      6 changed trades · 7 changed series, both JSON {name: value or ''}, '' ends it · 8 expiry of an answer, ms · 9 the answer …
-- returns 1 written · 0 refused: read and decide again
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local held = redis.call('HMGET', KEYS[1], 'generation', 'version')
if run_id ~= ARGV[1] or (held[1] or '') ~= ARGV[2] or (held[2] or '') ~= ARGV[3] then
  return 0
end
for number = 4, #KEYS do
  if redis.call('EXISTS', KEYS[number]) == 1 then
    return 0
  end
end
for place, changes in ipairs({cjson.decode(ARGV[6]), cjson.decode(ARGV[7])}) do
  for name, value in pairs(changes) do
    if value == '' then
      redis.call('HDEL', KEYS[place + 1], name)
    else
      redis.call('HSET', KEYS[place + 1], name, value)
    end
  end
end
for number = 4, #KEYS do
  redis.call('SET', KEYS[number], ARGV[2 * number + 1], 'PX', ARGV[2 * number])
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[4] ~= '' then
  local time = redis.call('TIME')
  local begun_at_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], 'generation', ARGV[4], 'run_id', run_id, 'begun_at', begun_at_ms)
end
for number = 1, 3 do
  redis.call('PEXPIRE', KEYS[number], ARGV[5])
end
return 1
