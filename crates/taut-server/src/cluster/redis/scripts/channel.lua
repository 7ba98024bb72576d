-- One channel. ARGV: app, channel.
-- Gives its subscribers (nodes, where these are not counted), its users, and its last event with the ms for which it is still kept.
local app, channel = unpack(ARGV)
local sum = subscribers(app, channel)
local nodes = redis.call('HGET', name('occupied', app), channel) or '0'
local event, ends = unpack(redis.call('HMGET', name('last', app, channel), 'event', 'until'))
local left = event and ends - NOW or 0
return { sum > 0 and digits(sum) or nodes, redis.call('HLEN', name('users', app, channel)), left > 0 and event, digits(left) }
