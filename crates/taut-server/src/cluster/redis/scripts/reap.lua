-- Takes away what a dead incarnation held: some of it, so that others are served in between. ARGV: how many cells at the most.
-- Gives how many incarnations are still to be reaped.
local incarnation = redis.call('SRANDMEMBER', X .. ':dead')
if not incarnation then
  return 0
end
local cells = X .. ':cells:' .. incarnation
local waited = redis.call('HGET', X .. ':grace', incarnation)
for _, cell in ipairs(redis.call('SPOP', cells, ARGV[1])) do
  release(incarnation, cell, waited)
end
if redis.call('EXISTS', cells) == 0 then
  redis.call('SREM', X .. ':dead', incarnation)
  redis.call('HDEL', X .. ':changes', incarnation)
  redis.call('HDEL', X .. ':members', incarnation)
  redis.call('HDEL', X .. ':grace', incarnation)
end
return redis.call('SCARD', X .. ':dead')
