-- Makes a change of one ring, or none of it.
-- KEYS: ring, log, tenants, ack.
-- ARGV 1-2:  the tenant; the digest of the ring that the change was decided on.
-- ARGV 3-8:  the log entry: op, kid, seq, actor, nonce; the log's length.
-- ARGV 9-10: the channel, and the message to publish on it.
-- ARGV 11-:  four lists, each after the number of its members: bounds (at, from, to in
--            microseconds), fields to set (name, value), names of fields to delete, kids to
--            publish.
-- Reply: 'ok', the time, the entry's ID, the new digest; or 'conflict' or 'bounds', and the time.
local ring, log, tenants, ack = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tenant, expected = ARGV[1], ARGV[2]

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

-- Checks. They write nothing.
local listed = redis.call('SISMEMBER', tenants, tenant) == 1 -- fails if the key is not a set
local now = clock(newest(log))
local current, err = digest(ring)
if err then
  return err
end
if current ~= expected then
  return replica(ack) or {'conflict', decimal(now)}
end
for i = 1, #bounds, 3 do
  local after = tonumber(bounds[i]) - now * 1000
  if after < tonumber(bounds[i + 1]) or after > tonumber(bounds[i + 2]) then
    return replica(ack) or {'bounds', decimal(now)}
  end
end

-- A user whose ACL lacks one of the commands below would leave half a change behind.
if redis.acl_check_cmd then
  local writes = {{'XADD', log, '*', 'f', 'v'}, {'HSET', ring, 'f', 'v'}, {'HDEL', ring, 'f'}, {'SADD', tenants, 'm'}, {'SREM', tenants, 'm'}}
  for _, write in ipairs(writes) do
    if not redis.acl_check_cmd(unpack(write)) then
      return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(write[1]) .. "' command on the key")
    end
  end
end

for _, kid in ipairs(published) do
  set[#set + 1] = 'p:' .. kid
  set[#set + 1] = decimal(now)
end

-- The writes. The log entry comes first: a Redis that is full, or has too few replicas, refuses it
-- before anything has changed. Fields are set before others are deleted: Redis removes a hash
-- without fields, and would make another key after it. The fields go in parts, because Lua can pass
-- only so many arguments to one command.
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[8], '*',
  'op', ARGV[3], 'tenant', tenant, 'kid', ARGV[4], 'seq', ARGV[5], 'actor', ARGV[6], 'nonce', ARGV[7])
for i = 1, #set, 1000 do
  redis.call('HSET', ring, unpack(set, i, math.min(i + 999, #set)))
end
for i = 1, #delete, 1000 do
  redis.call('HDEL', ring, unpack(delete, i, math.min(i + 999, #delete)))
end
local made = digest(ring)
if made ~= '' and not listed then
  redis.call('SADD', tenants, tenant)
elseif made == '' and listed then
  redis.call('SREM', tenants, tenant)
end
redis.pcall('PUBLISH', ARGV[9], ARGV[10]) -- only a nudge: an instance that misses it still polls

return {'ok', decimal(now), id, made}
