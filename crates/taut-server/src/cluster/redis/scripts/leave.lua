-- An incarnation does not hold cells any more. ARGV: incarnation, the number of this change, the cells.
local incarnation, change = ARGV[1], ARGV[2]
if not alive(incarnation) then
  return FENCED
end
redis.call('HSET', X .. ':changes', incarnation, change)
for at = 3, #ARGV do
  if redis.call('SREM', X .. ':cells:' .. incarnation, ARGV[at]) == 1 then
    release(incarnation, ARGV[at])
  end
end
return 0
