-- Removes the key of a bucket's log, tenants or acknowledgements if it has another type, and a log whose
-- last ID is the last possible one, since it takes no entry any more.
-- The next sync begins a log, and lists tenants again. What the key held before was overwritten.
-- KEYS: log, tenants, ack.
-- ARGV: '1' if the caller can list all tenants again. Else a set of them that cannot be read stays: an instance that
-- starts must not take an empty one for the truth.
-- Reply: the names of what was removed.
local refused = refusal(true)
if refused then
  return refused
end
local removed = {}
local function broken(...)
  local r = redis.pcall(...)
  return type(r) == 'table' and r.err and string.find(r.err, 'WRONGTYPE', 1, true)
end
local function mend(key, name, wrong)
  if wrong and redis.call('DEL', key) == 1 then
    removed[#removed + 1] = name
  end
end
-- Redis says that a log is exhausted before it looks at the new ID. This one is before any other, so a log that is
-- not exhausted refuses it. Only one that is missing, or never had an entry, takes it: that is as it was without it.
local function exhausted()
  local r = redis.pcall('XADD', KEYS[1], '1-1', 'op', '')
  if type(r) ~= 'table' then
    redis.call('DEL', KEYS[1])
    return false
  end
  return r.err and string.find(r.err, 'exhausted', 1, true)
end
mend(KEYS[1], 'log', broken('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) or exhausted())
if ARGV[1] == '1' then
  -- A user that may not add to the set gets another error from SADD: it could not list tenants again.
  mend(KEYS[2], 'tenants', broken('SISMEMBER', KEYS[2], '') and broken('SADD', KEYS[2], ''))
end
mend(KEYS[3], 'ack', broken('HDEL', KEYS[3], '')) -- there is never a field ''
return removed
