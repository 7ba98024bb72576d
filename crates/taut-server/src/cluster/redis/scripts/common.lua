-- What all scripts share. KEYS[1] is the partition: all its keys and channels begin with it.

local X = KEYS[1]
local FENCED = redis.error_reply('FENCED the lease of this incarnation is over')

local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)

-- Lua's own form of a large number has an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

local function field(text)
  return #text .. ':' .. text
end

local function fields(text)
  local found, at = {}, 1
  while at <= #text do
    local colon = string.find(text, ':', at, true)
    local stop = colon + tonumber(string.sub(text, at, colon - 1))
    found[#found + 1] = string.sub(text, colon + 1, stop)
    at = stop + 1
  end
  return found
end

local function name(kind, app, channel)
  return X .. ':' .. kind .. ':' .. app .. (channel and ':' .. channel or '')
end

-- Whether an incarnation may still change something. One that is dead has no lease.
local function alive(incarnation)
  local lease = redis.call('ZSCORE', X .. ':leases', incarnation)
  return lease and tonumber(lease) >= NOW
end

-- Puts down what webhooks tell of, and for how many ms it was held back, if it was. The bound only matters if no node reads it for long.
local function happened(kind, app, channel, more, waited)
  local event = '1' .. kind .. field(app) .. field(channel) .. (more and field(more) or '')
  if waited and waited ~= '0' then
    event = event .. field(waited)
  end
  redis.call('XADD', X .. ':happened', 'MAXLEN', '~', 100000, '*', 'event', event)
end

-- The number of the last change of a presence channel. One without users has none: any change from now on has a greater number than this.
local function position(app, channel)
  return redis.call('HGET', X .. ':numbers', app .. ':' .. channel) or redis.call('GET', X .. ':number') or '0'
end

-- A user has come (+) or gone (-): numbers the change and tells it.
local function announce(app, channel, sign, user, info, waited)
  local number = digits(redis.call('INCR', X .. ':number'))
  local previous = redis.call('HGET', X .. ':numbers', app .. ':' .. channel) or '0'
  redis.call('HSET', X .. ':numbers', app .. ':' .. channel, number)
  local epoch = redis.call('HGET', X .. ':epoch', 'id')
  local message = '1c' .. field(epoch) .. field(number) .. field(previous) .. field(sign) .. field(user) .. field(info)
  redis.call(PUBLISH, name('channel', app, channel), message)
  happened(sign, app, channel, user, waited)
end

local function subscribers(app, channel)
  local sum = 0
  for _, count in ipairs(redis.call('HVALS', name('counts', app, channel))) do
    sum = sum + tonumber(count)
  end
  return sum
end

local function announce_count(app, channel)
  local sum = subscribers(app, channel)
  if sum > 0 then
    redis.call(PUBLISH, name('channel', app, channel), '1n' .. field(digits(sum)))
  end
  return sum
end

local function announce_status(app, user, is_online)
  redis.call(PUBLISH, name('status', app), '1s' .. field(user) .. field(is_online))
end

-- What comes with the first node that holds a cell, and goes with the last.

local come, gone = {}, {}

function come.o(app, channel)
  if redis.call('HINCRBY', name('occupied', app), channel, 1) == 1 then
    redis.call('PERSIST', name('last', app, channel))
    happened('o', app, channel)
  end
end

function gone.o(app, channel, _, _, waited)
  if redis.call('HINCRBY', name('occupied', app), channel, -1) > 0 then
    return
  end
  redis.call('HDEL', name('occupied', app), channel)
  -- The number of the last event of a cache channel stays for as long as somebody may compare it.
  local ends = tonumber(redis.call('HGET', name('last', app, channel), 'until') or 0)
  redis.call('PEXPIREAT', name('last', app, channel), digits(math.max(ends, NOW + 60000)))
  happened('v', app, channel, nil, waited)
end

function come.m(app, channel, user, info)
  if redis.call('HINCRBY', name('nodes', app, channel), user, 1) == 1 then
    redis.call('HSET', name('users', app, channel), user, info)
    announce(app, channel, '+', user, info)
  end
end

function gone.m(app, channel, user, _, waited)
  if redis.call('HINCRBY', name('nodes', app, channel), user, -1) > 0 then
    return
  end
  redis.call('HDEL', name('nodes', app, channel), user)
  redis.call('HDEL', name('users', app, channel), user)
  announce(app, channel, '-', user, '', waited)
  if redis.call('EXISTS', name('users', app, channel)) == 0 then
    redis.call('HDEL', X .. ':numbers', app .. ':' .. channel)
  end
end

function come.s(app, user)
  if redis.call('HINCRBY', name('online', app), user, 1) == 1 then
    announce_status(app, user, '1')
  end
end

function gone.s(app, user)
  if redis.call('HINCRBY', name('online', app), user, -1) <= 0 then
    redis.call('HDEL', name('online', app), user)
    announce_status(app, user, '0')
  end
end

-- A node's number of subscribers. It is set by count.lua.
function gone.c(app, channel, _, incarnation)
  redis.call('HDEL', name('counts', app, channel), incarnation)
  local sum = announce_count(app, channel)
  if sum > 0 then
    happened('n', app, channel, digits(sum))
  end
end

-- A node's share of an app's connections. It is set by draw.lua.
function gone.p(app, _, _, incarnation)
  redis.call('HDEL', name('shares', app), incarnation)
end

-- A cell that an incarnation held has been taken out of its set. That was held back for so many ms.
local function release(incarnation, cell, waited)
  local kind, app, channel, user = unpack(fields(cell))
  gone[kind](app, channel, user, incarnation, waited)
end
