-- Makes a change of one ring, or none of it.
-- KEYS: ring, log, tenants, ack.
-- ARGV 1-2:  the tenant; the digest of the ring that the change was decided on.
-- ARGV 3-9:  the log entry: op, kid, seq, actor, nonce, mac; the log's length.
-- ARGV 10-11: the channel, and the message to publish on it.
-- ARGV 12-:  four lists, each after the number of its members: bounds (at, from, to in
--            microseconds), fields to set (name, value), names of fields to delete, kids to
--            publish.
-- Reply: 'ok', the time, the entry's ID, the new digest, how many listeners were told; or 'conflict' or 'bounds', and the time; or
-- 'refused' and the text of an error, if nothing was written; or 'broken' and the text of an error, if
-- something was.
local ring, log, tenants, ack = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tenant, expected = ARGV[1], ARGV[2]

local at = 12
local function list(width)
  local members = {}
  for i = 1, tonumber(ARGV[at]) * width do
    members[i] = ARGV[at + i]
  end
  at = at + 1 + #members
  return members
end
local bounds, set, delete, published = list(3), list(2), list(1), list(1)

local listed, now -- whether the tenant is listed; the time

-- Makes all checks, and writes nothing, except that probe may. Returns the reply if the change must
-- not be made.
local function check()
  listed = redis.call('SISMEMBER', tenants, tenant) == 1 -- fails if the key is not a set
  now = clock(newest(log))
  local current, size = digest(ring)
  if not current then
    return {'refused', size.err}
  end
  if current ~= expected then
    return probe(ack) or {'conflict', decimal(now)}
  end
  for i = 1, #bounds, 3 do
    local after = tonumber(bounds[i]) - now * 1000
    if after < tonumber(bounds[i + 1]) or after > tonumber(bounds[i + 2]) then
      return probe(ack) or {'bounds', decimal(now)}
    end
  end
  local added = 0
  for _, kid in ipairs(published) do
    set[#set + 1] = 'p:' .. kid
    set[#set + 1] = decimal(now)
  end
  for _, part in ipairs(set) do
    added = added + #part
  end
  if added > 0 and size + added > maxRing then -- load would refuse it; what is replaced counts twice
    return {'refused', 'TOOLARGE the ring would have up to ' .. size + added .. ' bytes, at most ' .. maxRing}
  end
  -- A user whose ACL lacks one of the commands below would leave half a change behind.
  if redis.acl_check_cmd then
    local writes = {{'XADD', log, '*', 'f', 'v'}, {'HSET', ring, 'f', 'v'}, {'HDEL', ring, 'f'}, {'SADD', tenants, 'm'}, {'SREM', tenants, 'm'}}
    for _, write in ipairs(writes) do
      if not redis.acl_check_cmd(unpack(write)) then
        return {'refused', "NOPERM this user has no permissions to run the '" .. string.lower(write[1]) .. "' command on the key"}
      end
    end
  end
end

-- The writes after the log entry. Fields are set before others are deleted: Redis removes a hash
-- without fields, and would make another key after it. The fields go in parts, because Lua can pass
-- only so many arguments to one command.
local function write()
  for i = 1, #set, chunk do
    redis.call('HSET', ring, unpack(set, i, math.min(i + chunk - 1, #set)))
  end
  for i = 1, #delete, chunk do
    redis.call('HDEL', ring, unpack(delete, i, math.min(i + chunk - 1, #delete)))
  end
  local made, err = digest(ring)
  if not made then
    error(err)
  end
  if made ~= '' and not listed then
    redis.call('SADD', tenants, tenant)
  elseif made == '' and listed then
    redis.call('SREM', tenants, tenant)
  end
  return made
end

-- The text of an error that pcall has caught: a table in Redis 7, a string before.
local function textOf(err)
  return type(err) == 'table' and err.err or tostring(err)
end

-- The reply to a change of which nothing was written. The client closes the connection to a replica
-- if the reply is its error; then it finds the primary.
local function notMade(err)
  local text = textOf(err)
  if string.find(text, 'READONLY', 1, true) then
    return redis.error_reply(text)
  end
  return {'refused', text}
end

local refused = refusal(true)
if refused then
  return notMade(refused)
end
local ok, answer = pcall(check)
if not ok then
  return notMade(answer)
elseif answer then
  return answer
end

-- The log entry comes first: a Redis that is full, cannot save, has too few replicas, or became a
-- replica refuses the first write of a script, and no later one. Then nothing has changed.
local id = redis.pcall('XADD', log, 'MAXLEN', '~', ARGV[9], '*',
  'op', ARGV[3], 'tenant', tenant, 'kid', ARGV[4], 'seq', ARGV[5], 'actor', ARGV[6], 'nonce', ARGV[7], 'mac', ARGV[8])
if type(id) == 'table' then
  return notMade(id)
end
local made
ok, made = pcall(write)
if not ok then
  return {'broken', textOf(made)}
end
local told = redis.pcall('PUBLISH', ARGV[10], ARGV[11]) -- only a nudge: an instance that misses it still polls

return {'ok', decimal(now), id, made, type(told) == 'number' and decimal(told) or '0'}
