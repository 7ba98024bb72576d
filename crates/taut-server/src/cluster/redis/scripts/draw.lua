-- A node's share of the connections that an app may have.
-- ARGV: incarnation, the number of this change, app, how many it wants, how many it has already, how many all may have; and former incarnations
-- of the node. Gives how many it may have, which may be fewer than it has already: those count all the same.
local incarnation, change, app = ARGV[1], ARGV[2], ARGV[3]
local wanted, taken, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not alive(incarnation) then
  return FENCED
end
redis.call('HSET', X .. ':changes', incarnation, change)
local shares, cell = name('shares', app), field('p') .. field(app)
redis.call('HDEL', shares, incarnation, unpack(ARGV, 7))
local left = most
for _, share in ipairs(redis.call('HVALS', shares)) do
  left = left - tonumber(share)
end
local granted = math.max(math.min(wanted, left), 0)
local share = math.max(granted, taken)
if share > 0 then
  redis.call('HSET', shares, incarnation, digits(share))
  redis.call('SADD', X .. ':cells:' .. incarnation, cell)
else
  redis.call('SREM', X .. ':cells:' .. incarnation, cell)
end
return digits(granted)
