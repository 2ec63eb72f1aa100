-- Reads the tenants of a bucket.
-- KEYS: tenants, ack.
-- Reply: the names. One that is too long to be a tenant's is left out.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end
local reply = {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if #tenant <= maxTenant then
    reply[#reply + 1] = tenant
  end
end
return reply
