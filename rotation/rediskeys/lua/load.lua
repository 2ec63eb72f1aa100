-- Reads rings of one bucket at one moment.
-- KEYS: log, ack, then the rings.
-- Reply: the time; then for each ring its fields, name and value in turn, or the text of an error.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end

local reply = {decimal(clock(newest(KEYS[1])))}
for i = 3, #KEYS do
  local flat, size = redis.pcall('HGETALL', KEYS[i]), 0
  for n = 1, #flat do
    size = size + #flat[n]
  end
  if size > maxRing then
    flat = {err = 'TOOLARGE the ring has ' .. size .. ' bytes, at most ' .. maxRing}
  end
  reply[i - 1] = flat.err or flat
end
return reply
