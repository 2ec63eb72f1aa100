-- KEYS: log, ack. ARGV: id and nonce of a place.
local log, ack = KEYS[1], KEYS[2]

local refusal = replica(ack)
if refusal then
  return refusal
end

local entry
if ARGV[1] ~= '' then
  entry = redis.call('XRANGE', log, ARGV[1], ARGV[1])[1]
end
local proved = entry and field(entry, 'nonce') == ARGV[2]

local flat = redis.call('HGETALL', ack)
local now = clock(newest(log))
prune(ack, flat, now)
return {proved and '1' or '0', decimal(now), flat}
