-- A node comes to the cluster under a new incarnation.
-- ARGV: incarnation, an epoch for an engine without memory, the lease in ms, what the node says of itself. Gives the epoch.
local incarnation, epoch, lease, node = unpack(ARGV)
if redis.call('HSETNX', X .. ':epoch', 'id', epoch) == 1 then
  redis.call('HSET', X .. ':epoch', 'born', digits(NOW))
end
redis.call('ZADD', X .. ':leases', digits(NOW + lease), incarnation)
redis.call('HSET', X .. ':changes', incarnation, '0')
redis.call('HSET', X .. ':members', incarnation, node)
return redis.call('HGET', X .. ':epoch', 'id')
