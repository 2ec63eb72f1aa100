-- Says what time it is, on a primary. KEYS: log, ack.
-- Reply: the time.
local refused = refusal() or probe(KEYS[2])
if refused then
  return refused
end
return {decimal(clock(newest(KEYS[1])))}
