-- Renews a whole batch.
-- ARGV: now, end of the renewed lease, token.
-- Returns how many of its items it still has.
local now, until_, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local held = 0
for _, member in ipairs(redis.call('SMEMBERS', batch(token))) do
  local entry = redis.call('HGET', lease, key_of(member))
  if entry and token_of(entry) == token then
    redis.call('ZREM', ready(lane_of(member)), member)
    redis.call('ZADD', due, until_, member)
    held = held + 1
  end
end
if held > 0 then
  redis.call('PEXPIRE', batch(token), math.max((until_ - now) * 2, 1000))
  redis.call('ZADD', slots(string.sub(token, 2, 9)), 'XX', until_, token)
end
return held
