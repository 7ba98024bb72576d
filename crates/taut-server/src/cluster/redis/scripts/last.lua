-- The last event of a cache channel. ARGV: app, channel, 1 if a new subscriber waits for it.
-- Gives its number, the event or nothing, and for how many ms it is still kept.
local app, channel, is_missed = unpack(ARGV)
local last = name('last', app, channel)
local number, event, ends = unpack(redis.call('HMGET', last, 'number', 'event', 'until'))
if event and tonumber(ends) > NOW then
  return { number, event, digits(ends - NOW) }
end
if is_missed == '1' and redis.call('HSETNX', last, 'missed', 1) == 1 then
  if redis.call('HEXISTS', name('occupied', app), channel) == 0 then
    redis.call('PEXPIREAT', last, digits(NOW + 60000))
  end
  happened('m', app, channel)
end
return { number or '0', false, '0' }
