-- Incarnations have ended, and say so themselves. ARGV: for how many ms users may still be back on other nodes, the incarnations.
-- What they hold stays for as long: their lease ends then, and they are no nodes any more. Gives how many are to be reaped.
local grace = tonumber(ARGV[1])
for at = 2, #ARGV do
  local incarnation = ARGV[at]
  if grace > 0 and alive(incarnation) then
    redis.call('ZADD', X .. ':leases', 'XX', digits(NOW + grace), incarnation)
    redis.call('HSET', X .. ':grace', incarnation, digits(grace))
    redis.call('HDEL', X .. ':members', incarnation)
  elseif redis.call('ZREM', X .. ':leases', incarnation) == 1 then
    redis.call('SADD', X .. ':dead', incarnation)
  end
  if redis.call('GET', X .. ':reader') == incarnation then
    redis.call('DEL', X .. ':reader')
  end
end
return redis.call('SCARD', X .. ':dead')
