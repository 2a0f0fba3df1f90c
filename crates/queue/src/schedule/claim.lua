-- Looks which leases still hold, and renews those, so that none ends while its outcome is being written. A lease that
-- has ended holds until the item is leased again.
-- ARGV: now, end of the renewed leases, then key and token of each.
-- Returns for each 1 (holds), 0 (another has it) or 2 (nothing is known of it).
local now, until_ = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for i = 3, #ARGV, 2 do
  local key, token = ARGV[i], ARGV[i + 1]
  local entry = redis.call('HGET', lease, key)
  if not entry then
    answer[#answer + 1] = 2
  elseif token_of(entry) ~= token then
    answer[#answer + 1] = 0
  else
    local member = key .. string.sub(entry, 19, 26)
    redis.call('ZREM', ready(lane_of(member)), member)
    redis.call('ZADD', due, until_, member)
    answer[#answer + 1] = 1
  end
end
return answer
