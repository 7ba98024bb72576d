-- A user's connections are closed on all nodes. ARGV: app, user, the message that says so.
-- A node that does not hear it learns of it when it is back: within a minute, and if there were not very many.
local app, user, message = unpack(ARGV)
redis.call('XADD', X .. ':terminated', 'MAXLEN', '~', 1000, '*', 'app', app, 'user', user)
redis.call('PEXPIRE', X .. ':terminated', 60000)
redis.call(PUBLISH, X .. ':control', message)
return 0
