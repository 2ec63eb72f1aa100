-- KEYS: ack. ARGV: an instance.
return redis.call('HDEL', KEYS[1], ARGV[1])
