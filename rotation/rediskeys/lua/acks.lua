-- Reads the acknowledgements of a bucket.
-- KEYS: log, ack.
-- ARGV: ID and nonce of a place.
-- Reply: '1' if the log has that place; the time; the acknowledgements, name and value in turn.
local log, ack = KEYS[1], KEYS[2]
local id, nonce = ARGV[1], ARGV[2]

local refusal = replica(ack)
if refusal then
  return refusal
end

local entry
if id ~= '' then
  entry = redis.call('XRANGE', log, id, id)[1]
end
local proved = entry and field(entry, 'nonce') == nonce

local flat = redis.call('HGETALL', ack)
local now = clock(newest(log))
prune(ack, flat, now)
return {proved and '1' or '0', decimal(now), flat}
