-- An incarnation does not hold cells any more. ARGV: incarnation, the number of this change, and of each cell: the cell,
-- for how many ms that was held back.
local incarnation, change = ARGV[1], ARGV[2]
if not alive(incarnation) then
  return FENCED
end
redis.call('HSET', X .. ':changes', incarnation, change)
for at = 3, #ARGV, 2 do
  if redis.call('SREM', X .. ':cells:' .. incarnation, ARGV[at]) == 1 then
    release(incarnation, ARGV[at], ARGV[at + 1])
  end
end
return 0
