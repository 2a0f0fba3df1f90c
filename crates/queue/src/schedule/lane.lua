-- What is known of a lane changes.
-- ARGV: now, lane, then
--   'success', limit at first, highest limit: one more batch at once; the lane is no longer held back.
--   'unavailable', limit at first, until: half as many batches at once, and none before that time.
--   'suspend', 'resume', or 'unblock': it is no longer held back for what went wrong.
local now, lane, what = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local key = state(lane)
if what == 'success' then
  local limit = tonumber(redis.call('HGET', key, 'limit') or ARGV[4])
  redis.call('HSET', key, 'limit', math.min(limit + 1, tonumber(ARGV[5])))
  redis.call('HDEL', key, 'blocked')
elseif what == 'unavailable' then
  local limit = tonumber(redis.call('HGET', key, 'limit') or ARGV[4])
  redis.call('HSET', key, 'limit', math.max(math.floor(limit / 2), 1), 'blocked', ARGV[5])
elseif what == 'suspend' then
  redis.call('HSET', key, 'suspended', '1')
  redis.call('PERSIST', key)
  return
elseif what == 'resume' then
  redis.call('HDEL', key, 'suspended', 'blocked')
elseif what == 'unblock' then
  redis.call('HDEL', key, 'blocked')
end
if redis.call('HEXISTS', key, 'suspended') == 1 then return end
if what ~= 'unavailable' and redis.call('EXISTS', ready(lane)) == 1 then redis.call('ZADD', lanes, now, lane) end
-- A destination that nothing was sent to for a day is forgotten.
redis.call('PEXPIRE', key, 86400000)
