-- Take one step of a trade into the hash of its symbol's trades. The steps may come in any order, and more than once.
--
-- KEYS[1]   the hash: <trade_id> → "<text> <event time> <partition>:<offset> <expiry>", and <trade_id>:<field> → value
-- ARGV      1 step: approved, dispatched, closed · 2 trade_id · 3 event time, us · 4 partition · 5 offset
--           6 expiry, ms since 1970 · 7 how far ahead of now, us · 8 text · 9… field, value, …
-- returns   1 applied · 0 known already, or closed since · -1 past its horizon · -2 from the future
--
-- A closed trade stays as one field, so that a step which is delivered late does not open it again. What has expired is
-- taken out with the next step of any trade of the symbol; the key itself lives as long as its longest-lived trade.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + time[2] / 1000
local step, id, expiry = ARGV[1], ARGV[2], tonumber(ARGV[6])
if tonumber(ARGV[3]) > now_ms * 1000 + tonumber(ARGV[7]) then
  return -2
end
if expiry <= now_ms then
  return -1
end

local held = redis.call('HGETALL', KEYS[1])
local trades, latest = {}, expiry
for index = 1, #held, 2 do
  local trade = string.match(held[index], '^[^:]+')
  trades[trade] = trades[trade] or { fields = {}, expiry = 0 }
  table.insert(trades[trade].fields, held[index])
  trades[trade][held[index]] = held[index + 1]
  if held[index] == trade or held[index] == trade .. ':dispatch' then
    trades[trade].expiry = math.max(trades[trade].expiry, tonumber(string.match(held[index + 1], '%d+$')))
  end
end
for trade, found in pairs(trades) do
  if found.expiry <= now_ms then
    redis.call('HDEL', KEYS[1], unpack(found.fields))
    trades[trade] = nil
  else
    latest = math.max(latest, found.expiry)
  end
end

local known = trades[id] or { fields = {} }
local is_closed = known[id] and string.sub(known[id], 1, 6) == 'CLOSED'
if is_closed and step ~= 'closed' then
  return 0
end
local field = step == 'dispatched' and id .. ':dispatch' or id
local before = known[field]
if before and (step ~= 'closed' or is_closed) then
  local t, p, o = string.match(before, '(%d+) (%d+):(%d+) %d+$')
  t, p, o = tonumber(t), tonumber(p), tonumber(o)
  local event_time, partition, offset = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
  if event_time < t or (event_time == t and (partition < p or (partition == p and offset <= o))) then
    return 0
  end
end
if step == 'closed' and #known.fields > 0 then
  redis.call('HDEL', KEYS[1], unpack(known.fields))
end
redis.call('HSET', KEYS[1], field, ARGV[8] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ':' .. ARGV[5] .. ' ' .. ARGV[6])
for index = 9, #ARGV, 2 do
  redis.call('HSET', KEYS[1], id .. ':' .. ARGV[index], ARGV[index + 1])
end
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', latest))
return 1
