-- Publishes an event and keeps it as its channel's last one.
-- ARGV: incarnation, app, channel, the message before its position and behind it, for how many ms it is kept. Gives the number.
local incarnation, app, channel, head, tail, ttl = unpack(ARGV)
if not alive(incarnation) then
  return FENCED
end
local last = name('last', app, channel)
local number, ends = digits(redis.call('HINCRBY', last, 'number', 1)), digits(NOW + ttl)
redis.call('HSET', last, 'event', tail, 'until', ends)
redis.call('HDEL', last, 'missed')
if redis.call('HEXISTS', name('occupied', app), channel) == 0 then
  redis.call('PEXPIREAT', last, ends)
end
local epoch = redis.call('HGET', X .. ':epoch', 'id')
redis.call(PUBLISH, name('channel', app, channel), head .. field(epoch) .. field(number) .. tail)
return number
