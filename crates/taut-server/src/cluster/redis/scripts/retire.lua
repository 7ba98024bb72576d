-- Incarnations have ended, and say so themselves. ARGV: the incarnations. Gives how many are to be reaped.
for _, incarnation in ipairs(ARGV) do
  if redis.call('ZREM', X .. ':leases', incarnation) == 1 then
    redis.call('SADD', X .. ':dead', incarnation)
  end
  if redis.call('GET', X .. ':reader') == incarnation then
    redis.call('DEL', X .. ':reader')
  end
end
return redis.call('SCARD', X .. ':dead')
