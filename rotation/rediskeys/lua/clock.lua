-- Says what time it is, on a primary. KEYS: log, ack.
-- Reply: the time; the version of Redis, '' if the server does not tell.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end
local info = redis.pcall('INFO', 'server')
local version = type(info) == 'string' and string.match(info, 'redis_version:([%d.]+)') or ''
return {decimal(clock(newest(KEYS[1]))), version}
