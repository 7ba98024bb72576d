-- An incarnation has so many subscribers in channels.
-- ARGV: incarnation, the number of this change, how many former incarnations of the node there are, these, and of each channel: app, channel, number.
-- Everybody with interest hears of the sum; webhooks do if it is another one.
local incarnation, change, former = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not alive(incarnation) then
  return FENCED
end
redis.call('HSET', X .. ':changes', incarnation, change)
local cells = X .. ':cells:' .. incarnation
for at = 4 + former, #ARGV, 3 do
  local app, channel, count = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local counts, cell = name('counts', app, channel), field('c') .. field(app) .. field(channel)
  local before = subscribers(app, channel)
  for other = 4, 3 + former do
    redis.call('HDEL', counts, ARGV[other])
  end
  if count == '0' then
    redis.call('HDEL', counts, incarnation)
    redis.call('SREM', cells, cell)
  else
    redis.call('HSET', counts, incarnation, count)
    redis.call('SADD', cells, cell)
  end
  local sum = announce_count(app, channel)
  if sum > 0 and sum ~= before then
    happened('n', app, channel, digits(sum))
  end
end
return 0
