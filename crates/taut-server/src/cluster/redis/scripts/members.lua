-- Who is in a presence channel. ARGV: app, channel, how many ms an epoch settles.
-- Gives the position, 1 while the epoch settles, and of each user its id and what it says of itself.
local app, channel, settles = unpack(ARGV)
local born = redis.call('HGET', X .. ':epoch', 'born') or NOW
local is_settling = NOW - born < tonumber(settles)
return { position(app, channel), is_settling and 1 or 0, redis.call('HGETALL', name('users', app, channel)) }
