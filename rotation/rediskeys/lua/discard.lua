-- Removes the key of a ring that no script reads, since it is no hash or is too large.
-- KEYS: ring.
-- Reply: 1 if it was removed; 0 if it can be read, or is not there.
local refused = refusal(true)
if refused then
  return refused
end
local flat, size = redis.pcall('HGETALL', KEYS[1]), 0
if flat.err and not string.find(flat.err, 'WRONGTYPE', 1, true) then
  return flat
end
for n = 1, #flat do
  size = size + #flat[n]
end
if not flat.err and size <= maxRing then
  return 0
end
return redis.call('DEL', KEYS[1])
