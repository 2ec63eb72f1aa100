-- Proves an instance's place in the log of a bucket, stores its acknowledgement, and returns the
-- entries after it.
-- KEYS: log, ack, tenants, then the rings whose digests are wanted.
-- ARGV 1-2: ID and nonce of the place that the instance has applied.
-- ARGV 3-4: the instance; its acknowledgement, or ''.
-- ARGV 5:   how many acknowledgements to return at most.
-- ARGV 6:   a nonce for the first entry of an empty log.
-- ARGV 7-9: how many entries to return at most after the place, and without a place; the log's length.
-- ARGV 10:  '1' if the caller mends a set of tenants of another type.
-- ARGV 11-: the tenants of the rings.
-- Reply: 'ok' or 'resync'; ID and nonce of the new place; '1' if there is more; the time; the entries,
-- each a list of its fields; the digests; the acknowledgements, name and value in turn; the server's run, or ''.
local log, ack, tenants = KEYS[1], KEYS[2], KEYS[3]
local id, nonce, instance, sealed = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, beginNonce = tonumber(ARGV[5]), ARGV[6]
local pageSize, newestSize, logLength = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local lastID = '18446744073709551615-18446744073709551615' -- a log that has it takes no entry any more
local pageBytes = 1048576 -- of one reply's entries; one entry has less

local refused = refusal(id ~= '' and instance ~= '' and sealed ~= '')
if refused then
  return refused
end

if ARGV[10] == '1' then
  redis.call('SISMEMBER', tenants, '') -- fails if the key is not a set: then the caller mends it
end

local digests, unlisted = {}, {}
for i = 4, #KEYS do
  local d, err = digest(KEYS[i])
  if not d and not string.find(err.err, 'WRONGTYPE', 1, true) then
    return err
  end
  digests[i - 3] = d or '!wrongtype' -- equals no digest, so the instance loads the ring and gets the error
  local tenant = ARGV[10 + i - 3]
  if d and d ~= '' and redis.pcall('SISMEMBER', tenants, tenant) == 0 then
    unlisted[#unlisted + 1] = tenant
  end
end

local places = {op = 1, tenant = 2, kid = 3, seq = 4, actor = 5, nonce = 6, mac = 7} -- in a reply

-- The entries of a list from one index to another, as far as a reply takes them, without those that
-- name no tenant; and the index of the last of them.
local function page(entries, first, last)
  local reply, bytes = {}, 0
  for i = first, last do
    local one = {'', '', '', '', '', '', ''}
    local flat = entries[i][2]
    for n = 1, #flat, 2 do
      local at = places[flat[n]]
      if at and one[at] == '' and #flat[n + 1] <= maxEntry[flat[n]] then
        one[at] = flat[n + 1]
        bytes = bytes + #one[at]
      end
    end
    if bytes > pageBytes then
      return reply, i - 1
    end
    if one[2] ~= '' then
      reply[#reply + 1] = one
    end
  end
  return reply, last
end

-- One command proves the place and reads the entries after it.
local entries = {}
if id ~= '' then
  entries = redis.call('XRANGE', log, id, '+', 'COUNT', pageSize + 2)
end
local proved = entries[1] and entries[1][1] == id and field(entries[1], 'nonce') == nonce

-- Everything up to the last ID that a log can have was read, and the log takes no change any more. The caller mends it.
if proved and id == lastID and instance ~= '' then
  return redis.error_reply('ERR the log has exhausted the last possible ID')
end

local last, began, more, changed = nil, false, false, {}
if proved then
  local to
  changed, to = page(entries, 2, math.min(#entries, pageSize + 1))
  last, more = entries[to], to < #entries
else
  entries = redis.call('XREVRANGE', log, '+', '-', 'COUNT', newestSize)
  last = entries[1]
  local back = page(entries, 1, #entries)
  for i = #back, 1, -1 do
    changed[#changed + 1] = back[i]
  end
  if not last then
    local first = redis.call('XADD', log, '*', 'op', 'begin', 'tenant', '', 'kid', '', 'seq', '0', 'actor', '', 'nonce', beginNonce, 'mac', '')
    began = true
    redis.call('DEL', ack) -- acknowledgements of an earlier log say nothing about this one
    last = {first, {'nonce', beginNonce}}
  end
end

local now = clock(more and newest(log) or last)

if proved and instance ~= '' and sealed ~= '' then
  redis.call('HSET', ack, instance, sealed)
elseif not began then
  refused = probe(ack)
  if refused then
    return refused
  end
end

local acks = {}
if wanted > 0 then
  acks = acknowledgements(ack, wanted, instance ~= '')
end

-- A ring that is missing in the set of tenants is invisible to an instance that starts. List it
-- again. The log entry tells the instances that know the rest of the bucket.
if instance ~= '' then
  for i, tenant in ipairs(unlisted) do
    if redis.pcall('SADD', tenants, tenant) == 1 then
      redis.pcall('XADD', log, 'MAXLEN', '~', logLength, '*',
        'op', 'list', 'tenant', tenant, 'kid', '', 'seq', '0', 'actor', instance, 'nonce', beginNonce .. '/' .. i, 'mac', '')
    end
  end
end

return {proved and 'ok' or 'resync', last[1], field(last, 'nonce'), more and '1' or '0', decimal(now), changed, digests, acks, serverRun}
