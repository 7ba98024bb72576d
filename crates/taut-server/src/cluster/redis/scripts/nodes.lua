-- The nodes of the cluster. Gives of each its incarnation, for how many ms its lease goes on, and what it says of itself.
local nodes = {}
local leases = redis.call('ZRANGEBYSCORE', X .. ':leases', digits(NOW), '+inf', 'WITHSCORES')
for at = 1, #leases, 2 do
  local node = redis.call('HGET', X .. ':members', leases[at])
  -- One without has left, and what it held stays for a while.
  if node then
    nodes[#nodes + 1] = { leases[at], digits(leases[at + 1] - NOW), node }
  end
end
return nodes
