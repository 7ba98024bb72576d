-- An incarnation holds cells from now on.
-- ARGV: incarnation, the number of this change, and of each cell: the cell, what the user says of itself, how many users there may be (0: any).
-- Gives for each cell of a user in a presence channel the position that has it, or FULL; nothing for others.
local incarnation, change = ARGV[1], ARGV[2]
if not alive(incarnation) then
  return FENCED
end
redis.call('HSET', X .. ':changes', incarnation, change)

local function join(cell, info, most)
  local kind, app, channel, user = unpack(fields(cell))
  if most > 0 and redis.call('HEXISTS', name('users', app, channel), user) == 0
      and redis.call('HLEN', name('users', app, channel)) >= most then
    return 'FULL'
  end
  if redis.call('SADD', X .. ':cells:' .. incarnation, cell) == 1 then
    come[kind](app, channel, user, info)
  end
  return kind == 'm' and position(app, channel) or ''
end

local replies = {}
for at = 3, #ARGV, 3 do
  replies[#replies + 1] = join(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]))
end
return replies
