-- Removes what is in the place of a bucket's log, tenants or acknowledgements, and has another type.
-- The next sync begins a log, and lists tenants again. What the key held before was overwritten.
-- KEYS: log, tenants, ack.
-- Reply: the names of what was removed.
local refused = refusal(true)
if refused then
  return refused
end
local removed = {}
local function mend(key, name, ...)
  local r = redis.pcall(...)
  if type(r) == 'table' and r.err and string.find(r.err, 'WRONGTYPE', 1, true) and redis.call('DEL', key) == 1 then
    removed[#removed + 1] = name
  end
end
mend(KEYS[1], 'log', 'XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
mend(KEYS[2], 'tenants', 'SISMEMBER', KEYS[2], '')
mend(KEYS[3], 'ack', 'HDEL', KEYS[3], '') -- there is never a field ''
return removed
