-- Removes the acknowledgement of an instance.
-- KEYS: ack.
-- ARGV: the instance.
return redis.call('HDEL', KEYS[1], ARGV[1])
