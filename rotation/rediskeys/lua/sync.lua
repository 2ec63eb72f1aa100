-- KEYS: log, ack, tenants, then the rings whose digests are wanted.
-- ARGV: id and nonce of the place; instance; since when it is good, or 0; the age below which an
-- acknowledgement vouches, or 0, and how long it must have been good; a nonce for the first entry of
-- an empty log; how many entries to return; the log's length; then the tenants of the rings. All times
-- in milliseconds.
local log, ack, tenants = KEYS[1], KEYS[2], KEYS[3]
local id, nonce, me, since = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local within, good = tonumber(ARGV[5]), tonumber(ARGV[6])
local cap = tonumber(ARGV[8])

local digests, unlisted = {}, {}
for i = 4, #KEYS do
  local d, err = digest(KEYS[i])
  if err and not string.find(err.err, 'WRONGTYPE', 1, true) then
    return err
  end
  digests[i - 3] = d or '!wrongtype' -- equals no digest: the Load that follows has the error
  local tenant = ARGV[9 + i - 3]
  if d and d ~= '' and redis.pcall('SISMEMBER', tenants, tenant) == 0 then
    unlisted[#unlisted + 1] = tenant
  end
end

-- One command proves the place and reads what came after it.
local entries = {}
if id ~= '' then
  entries = redis.call('XRANGE', log, id, '+', 'COUNT', cap + 2)
end
local proved = entries[1] and entries[1][1] == id and field(entries[1], 'nonce') == nonce
local more = proved and #entries > cap + 1

local last, begun, changed, seen = nil, false, {}, {}
if proved then
  last = entries[math.min(#entries, cap + 1)]
  for i = 2, math.min(#entries, cap + 1) do
    local tenant = field(entries[i], 'tenant')
    if tenant ~= '' and not seen[tenant] then
      seen[tenant] = true
      changed[#changed + 1] = tenant
    end
  end
else
  last = newest(log)
  if not last then
    local first = redis.call('XADD', log, '*', 'op', 'begin', 'tenant', '', 'kid', '', 'seq', '0', 'actor', '', 'nonce', ARGV[7])
    begun = true
    redis.call('DEL', ack) -- what was acknowledged in a former life says nothing about this one
    last = {first, {'nonce', ARGV[7]}}
  end
end

local now = clock(more and newest(log) or last)

local flat = {}
local vouched = '0'
if within > 0 then
  flat = redis.call('HGETALL', ack)
  for i = 1, #flat, 2 do
    local from, at = parse(flat[i + 1])
    if at and flat[i] ~= me and at <= now and now - at < within and from > 0 and now - from >= good then
      vouched = '1'
    end
  end
end

if proved and me ~= '' then
  redis.call('HSET', ack, me, id .. ' ' .. nonce .. ' ' .. since .. ' ' .. decimal(now))
elseif not begun then
  local refusal = replica(ack)
  if refusal then
    return refusal
  end
end

-- A ring that is not listed any more, nobody finds who does not know of it. Whoever knows the rest of
-- the bucket learns of it by the log.
if me ~= '' then
  prune(ack, flat, now)
  for _, tenant in ipairs(unlisted) do
    if redis.pcall('SADD', tenants, tenant) == 1 then
      redis.pcall('XADD', log, 'MAXLEN', '~', ARGV[9], '*',
        'op', 'list', 'tenant', tenant, 'kid', '', 'seq', '0', 'actor', me, 'nonce', ARGV[7] .. '/' .. tenant)
    end
  end
end

return {proved and 'ok' or 'resync', last[1], field(last, 'nonce'), more and '1' or '0', decimal(now), vouched, changed, digests}
