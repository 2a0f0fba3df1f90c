-- Puts leases back that Redis has lost but this process still knows.
-- ARGV: end of the leases, token, then the members.
local until_, token = tonumber(ARGV[1]), ARGV[2]
for i = 3, #ARGV do
  local member = ARGV[i]
  if redis.call('HSETNX', lease, key_of(member), token .. '\1' .. flow_of(member)) == 1 then
    redis.call('ZREM', ready(lane_of(member)), member)
    redis.call('ZADD', due, until_, member)
    redis.call('SADD', batch(token), member)
  end
end
redis.call('PEXPIRE', batch(token), 3600000)
