-- Says which rings of one bucket are small, so that the caller can read them with HGETALL. It has watched them,
-- so what it reads is what they are now, on a primary, or nothing.
-- KEYS: log, ack, then the rings.
-- Reply: the time; then a text with a digit for each ring: 1 if it takes little memory.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end

-- Redis adds up so many fields, and takes the average for the others. A field of a large hash takes at least 40
-- bytes, so a ring that seems small has fewer, and all of them were added up.
local added, most = '512', 16384
local small = {}
for i = 3, #KEYS do
  local memory = redis.pcall('MEMORY', 'USAGE', KEYS[i], 'SAMPLES', added)
  if type(memory) == 'table' then
    return memory -- this user, or this server, has no such command
  end
  small[i - 2] = (not memory or memory <= most) and '1' or '0'
end
return {decimal(clock(newest(KEYS[1]))), table.concat(small)}
