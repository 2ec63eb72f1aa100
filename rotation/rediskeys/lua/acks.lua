-- Reads the acknowledgements of a bucket.
-- KEYS: log, ack.
-- Reply: the time; the acknowledgements, name and value in turn.
local log, ack = KEYS[1], KEYS[2]
local refused = refusal() or probe(ack)
if refused then
  return refused
end
return {decimal(clock(newest(log))), acknowledgements(ack, maxAcks, true)}
