-- Proves an instance's place in the log of a bucket, stores its acknowledgement, and returns the
-- changes after it.
-- KEYS: log, ack, tenants, then the rings whose digests are wanted.
-- ARGV 1-2: ID and nonce of the place that the instance has applied.
-- ARGV 3-4: the instance; since when it has been in sync, or 0.
-- ARGV 5-6: vouching: another instance's acknowledgement counts if it is younger than this age and
--           says that the instance has been in sync for at least this long; an age of 0 asks for
--           nothing.
-- ARGV 7:   a nonce for the first entry of an empty log.
-- ARGV 8-9: how many entries to return at most; the log's length.
-- ARGV 10-: the tenants of the rings.
-- All times are in milliseconds.
-- Reply: 'ok' or 'resync'; ID and nonce of the new place; '1' if there is more; the time; '1' if
-- another instance vouches; the tenants that changed; the digests.
local log, ack, tenants = KEYS[1], KEYS[2], KEYS[3]
local id, nonce, instance, since = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local vouchWithin, vouchFor = tonumber(ARGV[5]), tonumber(ARGV[6])
local beginNonce, pageSize, logLength = ARGV[7], tonumber(ARGV[8]), ARGV[9]

local digests, unlisted = {}, {}
for i = 4, #KEYS do
  local d, err = digest(KEYS[i])
  if err and not string.find(err.err, 'WRONGTYPE', 1, true) then
    return err
  end
  digests[i - 3] = d or '!wrongtype' -- equals no digest, so the instance loads the ring and gets the error
  local tenant = ARGV[9 + i - 3]
  if d and d ~= '' and redis.pcall('SISMEMBER', tenants, tenant) == 0 then
    unlisted[#unlisted + 1] = tenant
  end
end

-- One command proves the place and reads the entries after it.
local entries = {}
if id ~= '' then
  entries = redis.call('XRANGE', log, id, '+', 'COUNT', pageSize + 2)
end
local proved = entries[1] and entries[1][1] == id and field(entries[1], 'nonce') == nonce
local more = proved and #entries > pageSize + 1

local last, began, changed, seen = nil, false, {}, {}
if proved then
  last = entries[math.min(#entries, pageSize + 1)]
  for i = 2, math.min(#entries, pageSize + 1) do
    local tenant = field(entries[i], 'tenant')
    if tenant ~= '' and not seen[tenant] then
      seen[tenant] = true
      changed[#changed + 1] = tenant
    end
  end
else
  last = newest(log)
  if not last then
    local first = redis.call('XADD', log, '*', 'op', 'begin', 'tenant', '', 'kid', '', 'seq', '0', 'actor', '', 'nonce', beginNonce)
    began = true
    redis.call('DEL', ack) -- acknowledgements of an earlier log say nothing about this one
    last = {first, {'nonce', beginNonce}}
  end
end

local now = clock(more and newest(log) or last)

local flat = {}
local vouched = '0'
if vouchWithin > 0 then
  flat = redis.call('HGETALL', ack)
  for i = 1, #flat, 2 do
    local from, at = parse(flat[i + 1])
    if at and flat[i] ~= instance and at <= now and now - at < vouchWithin and from > 0 and now - from >= vouchFor then
      vouched = '1'
    end
  end
end

if proved and instance ~= '' then
  redis.call('HSET', ack, instance, id .. ' ' .. nonce .. ' ' .. since .. ' ' .. decimal(now))
elseif not began then
  local refusal = replica(ack)
  if refusal then
    return refusal
  end
end

-- A ring that is missing in the set of tenants is invisible to an instance that starts. List it
-- again. The log entry tells the instances that know the rest of the bucket.
if instance ~= '' then
  prune(ack, flat, now)
  for _, tenant in ipairs(unlisted) do
    if redis.pcall('SADD', tenants, tenant) == 1 then
      redis.pcall('XADD', log, 'MAXLEN', '~', logLength, '*',
        'op', 'list', 'tenant', tenant, 'kid', '', 'seq', '0', 'actor', instance, 'nonce', beginNonce .. '/' .. tenant)
    end
  end
end

return {proved and 'ok' or 'resync', last[1], field(last, 'nonce'), more and '1' or '0', decimal(now), vouched, changed, digests}
