-- Occupied channels of an app, some of them at a time. ARGV: app, what their names begin with, the cursor.
-- Gives the next cursor, and of each channel its name, its subscribers (1, where they are not counted), and its users if it has any.
local app, prefix, cursor = unpack(ARGV)
local found = redis.call('HSCAN', name('occupied', app), cursor, 'COUNT', 500)
local channels = {}
for at = 1, #found[2], 2 do
  local channel = found[2][at]
  if string.sub(channel, 1, #prefix) == prefix then
    local sum = subscribers(app, channel)
    local users = string.sub(channel, 1, 9) == 'presence-' and redis.call('HLEN', name('users', app, channel))
    channels[#channels + 1] = { channel, digits(math.max(sum, 1)), users }
  end
end
return { found[1], channels }
