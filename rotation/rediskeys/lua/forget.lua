-- Removes the acknowledgement of an instance.
-- KEYS: ack.
-- ARGV: the instance.
return refusal(true) or redis.call('HDEL', KEYS[1], ARGV[1])
