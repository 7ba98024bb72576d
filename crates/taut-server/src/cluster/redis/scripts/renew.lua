-- An incarnation goes on; those whose lease is over are given to the reapers.
-- ARGV: incarnation, the number of its last change, the lease in ms, what the node says of itself.
-- Gives 1 if it reads what has happened, and how many incarnations are to be reaped.
local incarnation, change, lease, node = unpack(ARGV)
-- Another number: a failover has lost some of what the node was told to be done.
if not alive(incarnation) or redis.call('HGET', X .. ':changes', incarnation) ~= change then
  return FENCED
end
redis.call('ZADD', X .. ':leases', digits(NOW + lease), incarnation)
redis.call('HSET', X .. ':members', incarnation, node)
for _, lapsed in ipairs(redis.call('ZRANGEBYSCORE', X .. ':leases', '-inf', '(' .. digits(NOW), 'LIMIT', 0, 10)) do
  redis.call('ZREM', X .. ':leases', lapsed)
  redis.call('SADD', X .. ':dead', lapsed)
end
local reader = redis.call('GET', X .. ':reader')
if not reader or reader == incarnation then
  redis.call('SET', X .. ':reader', incarnation, 'PX', lease)
  reader = incarnation
end
return { reader == incarnation and 1 or 0, redis.call('SCARD', X .. ':dead') }
