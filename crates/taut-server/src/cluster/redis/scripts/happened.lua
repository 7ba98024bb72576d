-- What has happened and has not been told yet, for the one node that tells it.
-- ARGV: incarnation, the number of the last thing that it has told ('' for none), how many to give at the most; 0: it only
-- says what it has told.
-- Gives nothing to anybody else.
local incarnation, told, most = unpack(ARGV)
if redis.call('GET', X .. ':reader') ~= incarnation or not alive(incarnation) then
  return {}
end
if told ~= '' then
  local first, second = string.match(told, '^(%d+)-(%d+)$')
  redis.call('XTRIM', X .. ':happened', 'MINID', first .. '-' .. digits(second + 1))
end
local events = {}
if most == '0' then
  return events
end
for _, entry in ipairs(redis.call('XRANGE', X .. ':happened', '-', '+', 'COUNT', most)) do
  events[#events + 1] = { entry[1], entry[2][2] }
end
return events
