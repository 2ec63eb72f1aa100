-- Reads a page of the log of a bucket, for people.
-- KEYS: log, ack.
-- ARGV: the ID from which to read; how many entries to return at most.
-- Reply: '1' if there is more; the entries, each the ID, the fields, and the names of the fields that
-- are longer than any that keyturn writes. Such a field is empty in the reply.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end
local count, pageBytes = tonumber(ARGV[2]), 131072 -- the first entry comes in any case

local places = {op = 2, tenant = 3, kid = 4, seq = 5, actor = 6, nonce = 7, mac = 8} -- in a reply

local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', count + 1)
local reply, bytes, last = {}, 0, math.min(#entries, count)
for i = 1, last do
  local one, long, flat = {entries[i][1], '', '', '', '', '', '', '', ''}, {}, entries[i][2]
  for n = 1, #flat, 2 do
    local name, value = flat[n], flat[n + 1]
    local at = places[name]
    if at and #value > maxEntry[name] then
      long[#long + 1] = name
    elseif at and one[at] == '' then -- as in sync.lua
      one[at] = value
      bytes = bytes + #value
    end
  end
  if bytes > pageBytes and i > 1 then
    last = i - 1
    break
  end
  one[9] = table.concat(long, ' ', 1, math.min(#long, 7))
  reply[i] = one
end
return {last < #entries and '1' or '0', reply}
