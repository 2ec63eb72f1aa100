-- KEYS: ring, log, tenants, ack.
-- ARGV: tenant; the digest of the ring that the change is for; op, kid, seq, actor and nonce for the
-- log, and its length; the channel, and what to publish there; then four lists, each after the number
-- of its members: bounds (at, from, to in microseconds), fields to set (name, value), names of fields
-- to delete, kids that are published.
local ring, log, tenants = KEYS[1], KEYS[2], KEYS[3]
local tenant = ARGV[1]

local at = 11
local function list(width)
  local members = {}
  for i = 1, tonumber(ARGV[at]) * width do
    members[i] = ARGV[at + i]
  end
  at = at + 1 + #members
  return members
end
local bounds, set, delete, published = list(3), list(2), list(1), list(1)

local known = redis.call('SISMEMBER', tenants, tenant) == 1 -- an error if it is no set
local now = clock(newest(log))
local is, err = digest(ring)
if err then
  return err
end
if is ~= ARGV[2] then
  return replica(KEYS[4]) or {'conflict', decimal(now)}
end
for i = 1, #bounds, 3 do
  local after = tonumber(bounds[i]) - now * 1000
  if after < tonumber(bounds[i + 1]) or after > tonumber(bounds[i + 2]) then
    return replica(KEYS[4]) or {'bounds', decimal(now)}
  end
end

for _, kid in ipairs(published) do
  set[#set + 1] = 'p:' .. kid
  set[#set + 1] = decimal(now)
end

-- A user who may do one of these but not another would leave half a change.
if redis.acl_check_cmd then
  local writes = {{'XADD', log, '*', 'f', 'v'}, {'HSET', ring, 'f', 'v'}, {'HDEL', ring, 'f'}, {'SADD', tenants, 'm'}, {'SREM', tenants, 'm'}}
  for _, write in ipairs(writes) do
    if not redis.acl_check_cmd(unpack(write)) then
      return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(write[1]) .. "' command on the key")
    end
  end
end

-- The log goes first: it is what a Redis that is full, or short of replicas, refuses. Fields are set
-- before others are deleted: a hash that is empty for a moment would be another key after it.
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[8], '*',
  'op', ARGV[3], 'tenant', tenant, 'kid', ARGV[4], 'seq', ARGV[5], 'actor', ARGV[6], 'nonce', ARGV[7])
for i = 1, #set, 1000 do
  redis.call('HSET', ring, unpack(set, i, math.min(i + 999, #set)))
end
for i = 1, #delete, 1000 do
  redis.call('HDEL', ring, unpack(delete, i, math.min(i + 999, #delete)))
end
local made = digest(ring)
if made ~= '' and not known then
  redis.call('SADD', tenants, tenant)
elseif made == '' and known then
  redis.call('SREM', tenants, tenant)
end
redis.pcall('PUBLISH', ARGV[9], ARGV[10]) -- a nudge: whoever does not hear it polls

return {'ok', decimal(now), id, made}
