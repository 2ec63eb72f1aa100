-- What all scripts begin with. Redis runs a script alone, and undoes nothing if it fails: so all
-- that may be refused is asked before the first write.

local day, minute = 86400000, 60000

local function decimal(n)
  return string.format('%.0f', n)
end

local function newest(log)
  return redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
end

-- The time in milliseconds: never before that of the newest entry of the log.
local function clock(entry)
  local t = redis.call('TIME')
  local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  if entry then
    now = math.max(now, tonumber(string.match(entry[1], '^%d+')))
  end
  return now
end

-- A field of an entry of the log, '' if it has none.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then
      return entry[2][i + 1]
    end
  end
  return ''
end

-- The error of a server that is a replica, else nil. A replica would answer reads, with what was
-- true some time ago; but not even a write that changes nothing. There is never a field ''.
-- A script that is going to write must not ask: it has its answer from the first write, and after any
-- write, be it this one, Redis does not look any more whether it is full.
local function replica(ack)
  local r = redis.pcall('HDEL', ack, '')
  if type(r) == 'table' and r.err and string.find(r.err, 'READONLY', 1, true) then
    return r
  end
end

-- The digest of a ring, '' if there is none; else nil and the error. Digests are sorted, and not
-- names: Lua in Redis compares strings by the server's locale, and all agree on hexadecimal digits.
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

-- An acknowledgement: since when it is good, and of when it is; nil if it is none.
local function parse(value)
  local since, at = string.match(value, ' (%d+) (%d+)$')
  return tonumber(since), tonumber(at)
end

-- Takes those from a day ago out of the acknowledgements, and those that are ahead of the clock, which
-- may have been wrong for a while. That this may fail does not matter.
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

