-- Ends leases: the items are done, come again later, or go back as they were.
-- ARGV: now, then of each: key, token, the time it comes again or '', 'back' or ''.
--   back: it was not begun; it is ready at once, and of its leases without an outcome this one does not count.
-- Returns for each 1, or 0 when the token is stale: then nothing is changed.
local now = tonumber(ARGV[1])
local nobody = string.rep('\0', 17)
local answer = {}
for i = 2, #ARGV, 4 do
  local key, token, at, back = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3] == 'back'
  local entry = redis.call('HGET', lease, key)
  if not entry or token_of(entry) ~= token then
    answer[#answer + 1] = 0
  else
    local flow = string.sub(entry, 19, 26)
    local member = key .. flow
    local lane = lane_of(member)
    if redis.call('ZREM', due, member) == 0 then redis.call('ZREM', ready(lane), member) end
    local sooner = tonumber(redis.call('HGET', again, key) or math.huge)
    if sooner < math.huge then
      redis.call('HDEL', again, key)
      at = math.min(at or sooner, sooner)
    end
    local without = string.byte(entry, 18) - 1
    if back then at = now end
    if back and without > 0 then
      redis.call('HSET', lease, key, nobody .. string.char(without) .. flow)
    else
      redis.call('HDEL', lease, key)
    end
    if at then put(member, at, now) end
    redis.call('SREM', batch(token), member)
    if redis.call('EXISTS', batch(token)) == 0 and redis.call('ZREM', slots(lane), token) == 1 then
      -- The slot is free: whoever waits in the lane may be looked at.
      if redis.call('EXISTS', ready(lane)) == 1 then redis.call('ZADD', lanes, now, lane) end
    end
    answer[#answer + 1] = 1
  end
end
return answer
