-- One channel. ARGV: app, channel.
-- Gives its subscribers (1 if there are any, where they are not counted), its users, and its last event with the ms for which it is still kept.
local app, channel = unpack(ARGV)
local sum = subscribers(app, channel)
local least = redis.call('HEXISTS', name('occupied', app), channel)
local event, ends = unpack(redis.call('HMGET', name('last', app, channel), 'event', 'until'))
local left = event and math.max(ends - NOW, 0) or 0
return { digits(math.max(sum, least)), redis.call('HLEN', name('users', app, channel)), left > 0 and event, digits(left) }
