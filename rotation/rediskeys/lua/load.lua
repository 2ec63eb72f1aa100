-- Reads rings of one bucket at one moment.
-- KEYS: log, ack, then the rings.
-- Reply: the time; then for each ring its fields, name and value in turn, or the text of an error.
local refusal = replica(KEYS[2])
if refusal then
  return refusal
end

local reply = {decimal(clock(newest(KEYS[1])))}
for i = 3, #KEYS do
  local flat = redis.pcall('HGETALL', KEYS[i])
  reply[i - 1] = flat.err or flat
end
return reply
