-- Reads the tenants of a bucket.
-- KEYS: tenants, ack.
local refusal = replica(KEYS[2])
if refusal then
  return refusal
end
return redis.call('SMEMBERS', KEYS[1])
