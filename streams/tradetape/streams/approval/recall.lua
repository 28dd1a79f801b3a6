-- What approval remembers, in one look: the server's run, the account's marker and version, open trades, last ones, answers.
--
-- KEYS[1] account · 2 open · 3 last · 4 decision · 5 trade · 6 decision …
-- ARGV[1] expiry of decisions, ms · 2 of trades · 3 '*' for all series, '' for those that follow · 4… series
-- returns run_id · {the marker's run_id, generation, version} · the memory's age, ms · open, flat · last, flat · answers, each or false
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local time = redis.call('TIME')
local begun_at_ms = tonumber(redis.call('HGET', KEYS[1], 'begun_at') or 0)
local age_ms = time[1] * 1000 + math.floor(time[2] / 1000) - begun_at_ms
local last = {}
if ARGV[3] == '*' then
  last = redis.call('HGETALL', KEYS[3])
else
  for number = 4, #ARGV do
    last[#last + 1] = ARGV[number]
    last[#last + 1] = redis.call('HGET', KEYS[3], ARGV[number])
  end
end
local answers = {}
for number = 4, #KEYS do
  local answer = redis.call('GET', KEYS[number])
  if answer then
    redis.call('PEXPIRE', KEYS[number], ARGV[1 + number % 2])
  end
  answers[number - 3] = answer
end
return {run_id, redis.call('HMGET', KEYS[1], 'run_id', 'generation', 'version'), age_ms, redis.call('HGETALL', KEYS[2]), last, answers}
