-- Which memory of approval is there: the server's run, and the account's marker.
--
-- KEYS[1] account
-- returns run_id · {the marker's run_id, generation, version}
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
return {run_id, redis.call('HMGET', KEYS[1], 'run_id', 'generation', 'version')}
