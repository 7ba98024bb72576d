-- What has happened and webhooks are to be told of, for the one node that tells them.
-- ARGV: incarnation, where to go on ('-' at the beginning), how many to give at the most, the ids of those that it has told, and the engine can forget.
-- Gives each with its id and with how many ms ago it was, and nothing to anybody else.
local incarnation, from, most = unpack(ARGV)
if redis.call('GET', X .. ':reader') ~= incarnation or not alive(incarnation) then
  return {}
end
if #ARGV > 3 then
  redis.call('XDEL', X .. ':happened', unpack(ARGV, 4))
end
local events = {}
if most == '0' then
  return events
end
for _, entry in ipairs(redis.call('XRANGE', X .. ':happened', from, '+', 'COUNT', most)) do
  local at = tonumber(string.match(entry[1], '^(%d+)-'))
  events[#events + 1] = { entry[1], entry[2][2], digits(math.max(NOW - at, 0)) }
end
return events
