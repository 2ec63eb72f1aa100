-- Reads rings of one bucket at one moment.
-- KEYS: log, ack, then the rings.
-- Reply: the time; then for each ring its fields, name and value in turn: as one text in MessagePack if this
-- server can make that, which halves what the reply costs here and there, else as a list. In their place
-- a list of one text is the error with which the ring cannot be read.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end

local messagePack = rawget(_G, 'cmsgpack')
local reply = {decimal(clock(newest(KEYS[1])))}
for i = 3, #KEYS do
  local flat, size = redis.pcall('HGETALL', KEYS[i]), 0
  for n = 1, #flat do
    size = size + #flat[n]
  end
  if size > maxRing then
    flat = {err = 'TOOLARGE the ring has ' .. size .. ' bytes, at most ' .. maxRing}
  end
  if flat.err then
    flat = {flat.err}
  elseif messagePack and size > 0 then
    flat = messagePack.pack(flat)
  end
  reply[i - 1] = flat
end
return reply
