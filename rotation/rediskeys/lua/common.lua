-- The beginning of every script but forget.lua. Redis runs a script alone. If it fails half way,
-- Redis does not undo what it wrote. So a script makes every check that may fail before its first
-- write.

local day, minute = 86400000, 60000 -- in milliseconds

local function decimal(n)
  return string.format('%.0f', n)
end

local function newest(log)
  return redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
end

-- The store's time in milliseconds: Redis' clock, or the time in the ID of the newest log entry if
-- that is later. So it does not go back when a replica with another clock takes over.
local function clock(entry)
  local t = redis.call('TIME')
  local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  if entry then
    now = math.max(now, tonumber(string.match(entry[1], '^%d+')))
  end
  return now
end

-- The value of a field of a log entry, '' if the entry does not have it.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then
      return entry[2][i + 1]
    end
  end
  return ''
end

-- The error of a server that is a replica, else nil. A replica answers reads with old data, but it
-- refuses even a write that changes nothing, such as this one: there is never a field ''.
-- A script that is going to write must not call this. Its own first write fails on a replica. And
-- after any write, this one included, Redis no longer checks whether its memory is full.
local function replica(ack)
  local r = redis.pcall('HDEL', ack, '')
  if type(r) == 'table' and r.err and string.find(r.err, 'READONLY', 1, true) then
    return r
  end
end

-- The digest of a ring, '' if the ring has no fields; nil and an error if it cannot be read. The
-- digests of the fields are sorted, not their names: Lua in Redis compares strings by the server's
-- locale, and every locale orders hexadecimal digits alike.
local function digest(ring)
  local flat = redis.pcall('HGETALL', ring)
  if flat.err then
    return nil, flat
  end
  if #flat == 0 then
    return ''
  end
  local sums = {}
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    sums[#sums + 1] = redis.sha1hex(#name .. ':' .. name .. #value .. ':' .. value)
  end
  table.sort(sums)
  return redis.sha1hex(table.concat(sums))
end

-- The two times of an acknowledgement: since when its instance has been in sync, and when it was
-- stored. Both are nil if it is malformed.
local function parse(value)
  local since, at = string.match(value, ' (%d+) (%d+)$')
  return tonumber(since), tonumber(at)
end

-- Removes acknowledgements that are malformed or older than a day. Also those ahead of the clock:
-- the clock that they were stored by was wrong. If the removal fails, a later call repeats it.
local function prune(ack, flat, now)
  local old = {}
  for i = 1, #flat, 2 do
    local _, at = parse(flat[i + 1])
    if (not at or now - at > day or at - now > minute) and #old < 1000 then
      old[#old + 1] = flat[i]
    end
  end
  if #old > 0 then
    redis.pcall('HDEL', ack, unpack(old))
  end
end

