-- The users whose connections were closed on all nodes within the last minute. Gives of each the app, the user, and how many ms ago that was.
local users = {}
for _, entry in ipairs(redis.call('XRANGE', X .. ':terminated', digits(NOW - 60000), '+')) do
  local id, fields = entry[1], entry[2]
  local time = tonumber(string.match(id, '^%d+'))
  users[#users + 1] = { fields[2], fields[4], digits(math.max(NOW - time, 0)) }
end
return users
