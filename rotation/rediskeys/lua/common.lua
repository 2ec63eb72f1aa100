-- The beginning of every script. Redis runs a script alone. If it fails half way, Redis does not
-- undo what it wrote. So a script makes every check that may fail before its first write.
--
-- Anyone who can write to Redis chooses what these scripts read. So each of them bounds what it
-- returns. docs/formats.md has the bounds.

local day, hour = 86400000, 3600000 -- in milliseconds
local latest = 7258118399999 -- the last millisecond before 2200: dates end there

local maxAck, maxAcks = 8192, 4096 -- bytes of an acknowledgement, and how many a bucket keeps
local maxTenant, maxRing = 256, 1048576 -- bytes
local maxEntry = {op = 32, tenant = maxTenant, kid = 256, seq = 10, actor = 256, nonce = 64, mac = 73728} -- bytes
local chunk = 1000 -- arguments that Lua passes to one command: it can pass some thousands

local function decimal(n)
  return string.format('%.0f', n)
end

-- Whether the server told its role. Then the check is done, and probe has nothing to add.
local roleKnown = false

-- Which run of the server this is, '' if it does not tell: its replication ID. That is another one
-- after each start of a primary and after each promotion, so a process that was a replica meanwhile
-- has another one too. The run_id does not change then, and costs another INFO.
local serverRun = ''

-- The error of a server that must not be used, else nil. INFO tells a replica even if it accepts
-- writes (replica-read-only no). ROLE would say the same, but scripts may not call it. Each script
-- asks, at some 3 us, because between two scripts of one pipeline the server may become a replica.
--
-- writes says that the script is going to write. Then a primary is refused that has no good replica
-- and wants one (min-replicas-to-write). Redis does that itself, but before 7.0 not for the commands
-- of scripts (redis/redis issue 9993).
--
-- A server that does not know INFO in scripts, such as miniredis, is not refused. One that forbids it
-- to this user is: its role cannot be known.
local function refusal(writes)
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'table' and info.err then
    if string.find(info.err, 'nknown Redis command', 1, true) or string.find(info.err, 'nknown command', 1, true) or
      string.find(info.err, 'is not supported', 1, true) then
      return nil
    end
    return info
  end
  local role = type(info) == 'string' and string.match(info, 'role:([%w-]+)')
  if not role then
    return nil
  end
  roleKnown = true
  local id = string.match(info, 'master_replid:(%x+)')
  if id and #id == 40 and string.find(id, '[^0]') then
    serverRun = id
  end
  if role ~= 'master' then
    return redis.error_reply('READONLY this server is no primary: its role is ' .. role)
  end
  if writes and string.find(info, 'min_slaves_good_slaves:0\r', 1, true) then
    return redis.error_reply('NOREPLICAS Not enough good replicas to write')
  end
end

-- The error of a replica that did not tell its role, else nil. A replica answers reads with old data,
-- but it refuses even a write that changes nothing, such as this one: there is never a field ''. A
-- script that is going to write must not call this. Its own first write fails on a replica. And after
-- any write, this one included, Redis no longer checks whether its memory is full.
local function probe(ack)
  local r = not roleKnown and redis.pcall('HDEL', ack, '')
  if type(r) == 'table' and r.err and string.find(r.err, 'READONLY', 1, true) then
    return r
  end
end

local function newest(log)
  return redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
end

-- Redis' clock in milliseconds.
local function wall()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- The store's time in milliseconds: Redis' clock, or the time in the ID of the newest log entry if
-- that is later. So it does not go back when a replica with another clock takes over. An ID may be any
-- number of 64 bits, and a date must be one that the readers know.
local function clock(entry)
  local now = wall()
  if entry then
    now = math.max(now, math.min(tonumber(string.match(entry[1], '^%d+')), latest))
  end
  return now
end

-- The value of a field of a log entry, '' if the entry does not have it, or an oversized one.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name and #entry[2][i + 1] <= maxEntry[name] then
      return entry[2][i + 1]
    end
  end
  return ''
end

-- The digest of a ring, '' if the ring has no fields, and its size in bytes; nil and an error if it
-- cannot be read. The digests of the fields are sorted, not their names: Lua in Redis compares strings
-- by the server's locale, and every locale orders hexadecimal digits alike.
local function digest(ring)
  local flat = redis.pcall('HGETALL', ring)
  if flat.err then
    return nil, flat
  end
  if #flat == 0 then
    return '', 0
  end
  local sums, size = {}, 0
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    size = size + #name + #value
    sums[#sums + 1] = redis.sha1hex(#name .. ':' .. name .. #value .. ':' .. value)
  end
  table.sort(sums)
  return redis.sha1hex(table.concat(sums)), size
end

-- The date of an acknowledgement in milliseconds, nil if it is not one. It is 0 if a newer version
-- sealed it: then only its first three bytes are known.
local function dateOf(value)
  if #value > maxAck or string.sub(value, 1, 2) ~= 'kt' then
    return nil
  end
  local version = string.byte(value, 3) or 0
  if version > 1 then
    return 0
  end
  if version == 0 or string.sub(value, 4, 4) ~= 'A' or #value < 12 then
    return nil
  end
  local date = 0
  for i = 5, 12 do
    date = date * 256 + string.byte(value, i)
  end
  return date > 0 and date or nil
end

-- The acknowledgements of a bucket whose dates are nearest to now, at most n, name and value in turn. So
-- what a person dates ahead does not take the place of those of live instances. Left out are those
-- that are malformed, older than a day, or more than an hour ahead. Redis' clock judges that, and not
-- the store's: an entry of the log from the far future must not make all of them old.
--
-- With prune it removes what it leaves out for those reasons, and the farthest above maxAcks. If the
-- removal fails, a later call repeats it.
local function acknowledgements(ack, n, prune)
  local flat, now = redis.call('HGETALL', ack), wall()
  local all, old = {}, {}
  for i = 1, #flat, 2 do
    local date = dateOf(flat[i + 1])
    if date and #flat[i] <= maxEntry.actor and (date == 0 or now - date <= day and date - now <= hour) then
      all[#all + 1] = {flat[i], flat[i + 1], math.abs(now - date)}
    else
      old[#old + 1] = flat[i]
    end
  end
  table.sort(all, function(a, b) return a[3] < b[3] end)
  for i = maxAcks + 1, #all do
    old[#old + 1] = all[i][1]
  end
  if prune and #old > 0 then
    redis.pcall('HDEL', ack, unpack(old, 1, math.min(#old, chunk)))
  end
  local reply = {}
  for i = 1, math.min(n, maxAcks, #all) do
    reply[#reply + 1] = all[i][1]
    reply[#reply + 1] = all[i][2]
  end
  return reply
end
